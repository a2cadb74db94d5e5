// Who holds a Lease, by what it says (plugins/kube/lease.hpp).
#include "lease.hpp"

#include <gtest/gtest.h>

namespace egw::kube::test {
namespace {

using std::chrono::system_clock;

TEST(Lease, IsHeldForAsLongAsItSays) {
  const auto now = system_clock::now();
  const auto lease =
      taken(new_lease("ns", "egw"), "c1", 3, std::chrono::seconds(15), micro_time(now));
  EXPECT_TRUE(held_at(lease, now));
  EXPECT_TRUE(held_at(lease, now + std::chrono::seconds(15)));
  EXPECT_FALSE(held_at(lease, now + std::chrono::seconds(17)));
  EXPECT_FALSE(held_at(released(lease, micro_time(now)), now)) << "given back";
  EXPECT_FALSE(held_at(new_lease("ns", "egw"), now));
}

TEST(Lease, WithoutAReadableTimeItsHolderHasTheWord) {
  auto lease = taken(new_lease("ns", "egw"), "c1", 3, std::chrono::seconds(15), "soon");
  EXPECT_TRUE(held_at(lease, system_clock::now()));
}

}  // namespace
}  // namespace egw::kube::test
