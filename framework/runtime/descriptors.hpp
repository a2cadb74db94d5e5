// DescriptorWatch: whether the file descriptors of this process grow without end, which is what a
// plugin does that leaks them. Used by the agent.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "egw/model/result.hpp"

namespace egw::runtime {

struct OpenDescriptors {
  std::map<std::string, std::size_t> by_target;  // "socket", "/dev/null", "anon_inode:[eventfd]"
  std::size_t count = 0;
  std::size_t limit = 0;  // RLIMIT_NOFILE; 0: not known
};
// Reads /proc/self/fd: some microseconds per descriptor.
[[nodiscard]] OpenDescriptors open_descriptors();

class DescriptorWatch {
 public:
  static constexpr std::size_t kMany = 200;

  // kMany more than ever were enough, or half of the limit: says how many, and of what most are.
  // The least ever seen counts, so what a start needs for a while does not hide a leak.
  Result<void> look(const OpenDescriptors& now);

 private:
  std::size_t least_ = 0;
};

}  // namespace egw::runtime
