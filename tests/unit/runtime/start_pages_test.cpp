// What a start needed is given back, and nothing that was written.
#include "egw/runtime/start_pages.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace egw::runtime {
namespace {

constexpr std::size_t kPage = 4096, kPages = 64, kSize = kPage * kPages;

// A file mapped as a library's code is.
class MappedFile {
 public:
  MappedFile() {
    std::string name = ::testing::TempDir() + "pagesXXXXXX";
    const int fd = ::mkstemp(name.data());
    ::unlink(name.c_str());
    const std::vector<char> text(kSize, 'x');
    EXPECT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(kSize));
    memory_ =
        static_cast<char*>(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    ::close(fd);
  }
  ~MappedFile() { ::munmap(memory_, kSize); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  char* memory() { return memory_; }
  void no_more_writes() { ASSERT_EQ(::mprotect(memory_, kSize, PROT_READ), 0); }
  std::size_t touch() {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < kSize; i += kPage) {
      sum += static_cast<unsigned char>(static_cast<volatile char*>(memory_)[i]);
    }
    return sum;
  }

 private:
  char* memory_ = nullptr;
};

std::size_t resident_kb() {
  std::size_t kb = 0;
  std::array<char, 256> line{};
  FILE* status = std::fopen("/proc/self/status", "r");
  while (std::fgets(line.data(), line.size(), status) != nullptr) {
    if (std::sscanf(line.data(), "RssFile: %zu", &kb) == 1) break;
  }
  std::fclose(status);
  return kb;
}

TEST(StartPages, CleanPagesOfFilesLeaveTheProcessAndComeBack) {
  MappedFile file;
  file.no_more_writes();
  const std::size_t sum = file.touch();
  EXPECT_EQ(sum, 'x' * kPages);
  const std::size_t before = resident_kb();
  EXPECT_GE(give_back_start_pages(), kSize);
  EXPECT_LE(resident_kb() + kSize / 1024, before);
  EXPECT_EQ(file.touch(), sum);
}

// As the relocations of a library are, which is read-only afterwards.
TEST(StartPages, WhatWasWrittenStays) {
  MappedFile file;
  std::memset(file.memory() + kPage, 'y', kPage);
  file.no_more_writes();
  give_back_start_pages();
  EXPECT_EQ(file.memory()[kPage], 'y');
  EXPECT_EQ(file.memory()[0], 'x');
}

}  // namespace
}  // namespace egw::runtime
