// What a start needed is given back, and nothing that was written or may be somebody else's.
#include "egw/runtime/start_pages.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace egw::runtime {
namespace {

constexpr std::size_t kPage = 4096, kPages = 256, kSize = kPage * kPages;

// Stands in a segment of this program that is not writable, and fills a run of whole pages.
template <char kFill>
struct Constant {
  alignas(kPage) std::array<char, kSize> bytes{};
  constexpr Constant() {
    for (std::size_t i = 0; i < kSize; i += kPage) bytes[i] = kFill;
  }
};
constexpr Constant<'x'> kRead;
constexpr Constant<'z'> kWritten;

std::size_t touch(const char* memory) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kSize; i += kPage) {
    sum += static_cast<unsigned char>(static_cast<const volatile char*>(memory)[i]);
  }
  return sum;
}

// How many of the pages are in this process's memory: proc(5), pagemap.
std::size_t present(const char* memory) {
  std::array<std::uint64_t, kPages> entries{};
  const int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(memory) / kPage * 8);
  EXPECT_EQ(::pread(fd, entries.data(), sizeof(entries), at), ssize_t{sizeof(entries)});
  ::close(fd);
  return static_cast<std::size_t>(
      std::count_if(entries.begin(), entries.end(), [](auto entry) { return entry >> 63U != 0; }));
}

TEST(StartPages, CleanPagesOfTheProgramLeaveTheProcessAndComeBack) {
  const char* memory = kRead.bytes.data();
  const std::size_t sum = touch(memory);
  EXPECT_EQ(sum, 'x' * kPages);
  EXPECT_EQ(present(memory), kPages);
  EXPECT_GE(give_back_start_pages(), kSize);
  // What else is read of the program brings neighbours back, 64 KiB at a time.
  EXPECT_LT(present(memory), kPages / 2);
  EXPECT_EQ(touch(memory), sum);
}

TEST(StartPages, WhatWasWrittenStays) {
  auto* memory = const_cast<char*>(kWritten.bytes.data());
  char* second = memory + kPage;
  ASSERT_EQ(::mprotect(second, kPage, PROT_READ | PROT_WRITE), 0);
  std::memset(second, 'y', kPage);
  ASSERT_EQ(::mprotect(second, kPage, PROT_READ), 0);
  give_back_start_pages();
  const volatile char* now = memory;
  EXPECT_EQ(now[kPage], 'y');
  EXPECT_EQ(now[0], 'z');
}

// Another thread may take it away, and get other memory in its place.
TEST(StartPages, WhatIsNoLibrarysIsLeftAlone) {
  std::string name = ::testing::TempDir() + "pagesXXXXXX";
  const int fd = ::mkstemp(name.data());
  ::unlink(name.c_str());
  const std::vector<char> text(kSize, 'x');
  ASSERT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(kSize));
  auto* memory = static_cast<char*>(::mmap(nullptr, kSize, PROT_READ, MAP_PRIVATE, fd, 0));
  ::close(fd);
  touch(memory);
  give_back_start_pages();
  EXPECT_EQ(present(memory), kPages);
  ::munmap(memory, kSize);
}

std::string mapping(const std::string& first, const std::string& anonymous,
                    const std::string& swap) {
  return first + "\nRss:                   4 kB\nAnonymous:     " + anonymous +
         " kB\nAnonHugePages:         0 kB\nSwap:          " + swap +
         " kB\nSwapPss:               0 kB\nVmFlags: rd mr mw me\n";
}

TEST(StartPages, PagesThatWereWrittenAndAreInSwapAreNotTheFiles) {
  const std::string lib = " 00000000 08:01 42   /usr/lib/libx.so";
  std::istringstream smaps(mapping("1000-2000 r--p" + lib, "     0", "     0") +
                           mapping("2000-3000 r--p" + lib, "     0", "     4") +
                           mapping("3000-4000 r--p" + lib, "     4", "     0") +
                           mapping("4000-5000 rw-p" + lib, "     0", "     0") +
                           mapping("5000-6000 r--s" + lib, "     0", "     0") +
                           mapping("6000-7000 r--p 00000000 00:00 0", "     0", "     0") +
                           mapping("7000-9000 r-xp" + lib, "     0", "     0"));
  const std::vector<Pages> clean = clean_pages(smaps);
  ASSERT_EQ(clean.size(), 2U);
  EXPECT_EQ(clean[0].begin, 0x1000U);
  EXPECT_EQ(clean[1].begin, 0x7000U);
  EXPECT_EQ(clean[1].end, 0x9000U);
}

}  // namespace
}  // namespace egw::runtime
