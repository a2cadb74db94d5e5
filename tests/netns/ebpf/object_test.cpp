// What the objects that are loaded ask of the kernel by name.
#include <egw.skel.h>
#include <egw_fast.skel.h>
#include <gtest/gtest.h>

#include <string_view>

namespace {

template <class Bytes>
std::string_view object(const Bytes& bytes) {
  std::size_t size = 0;
  const auto* begin = static_cast<const char*>(bytes(&size));
  return {begin, size};
}

// Kernels before 5.18 have no such function, and where conntrack is a module, nobody finds it
// without CAP_SYS_ADMIN: libbpf looks for all that an object names, whatever is loaded of it.
TEST(Object, OnlyFastPathAsksForConntracksFunctions) {
  constexpr std::string_view kFunction = "bpf_skb_ct_lookup";
  EXPECT_EQ(object(egw_bpf__elf_bytes).find(kFunction), std::string_view::npos);
  EXPECT_NE(object(egw_fast_bpf__elf_bytes).find(kFunction), std::string_view::npos);
}

}  // namespace
