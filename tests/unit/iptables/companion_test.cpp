// A kernel without nftables, and one that does not answer: what is read of rules, and the tables
// beside iptables taken away.
#include "iptables/companion.hpp"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <string>
#include <thread>

#include "iptables/xtables.hpp"

namespace egw::iptables {
namespace {

// What the calling thread sends comes to this error, for good.
bool refuse_to_send(std::uint32_t error) {
  std::array<sock_filter, 4> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_sendto, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{code.size(), code.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

sdk::Status removed_where_sending_fails(int error) {
  sdk::Status out = sdk::fail(sdk::Code::kInternal, "no filter");
  std::thread([&] {
    if (!refuse_to_send(static_cast<std::uint32_t>(error))) return;
    try {
      out = Companion::remove([](std::uint32_t) {});
    } catch (const sdk::Failure& failure) {
      out = sdk::fail(sdk::Code::kInternal, std::string("thrown: ") + failure.what());
    }
  }).join();
  return out;
}

TEST(Companion, AKernelWithoutNftablesHoldsNoTable) {
  EXPECT_TRUE(removed_where_sending_fails(EINVAL).ok());
}

TEST(Companion, TablesThatCannotBeReadAreNotGone) {
  const sdk::Status s = removed_where_sending_fails(ENOBUFS);
  EXPECT_EQ(s.sys_errno, ENOBUFS) << s.text();
}

TEST(Xtables, AKernelWithoutNftablesHoldsNoRulesOfThatBackend) {
  const std::array<std::string, 2> broken{"/bin/false", "/bin/false"};
  const Xtables xtables({Backend::kNft, {broken, broken}, ""});
  EXPECT_THROW(static_cast<void>(xtables.saved(Table::kIp)), sdk::Failure);
  bool read = false;
  std::thread([&] {
    if (!refuse_to_send(EINVAL)) return;
    try {
      read = xtables.saved(Table::kIp)[0].chains.empty();
    } catch (const sdk::Failure&) {
    }
  }).join();
  EXPECT_TRUE(read);
}

TEST(Companion, WithoutASocketNothingIsGone) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const sdk::Status s = Companion::remove();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(s.sys_errno, EMFILE) << s.text();
}

}  // namespace
}  // namespace egw::iptables
