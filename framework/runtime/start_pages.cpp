// Clean pages of files out of this process (start_pages.hpp).
#include "egw/runtime/start_pages.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace egw::runtime {
namespace {

// What /proc/self/smaps says of one mapping: proc(5).
struct Mapping {
  std::uintptr_t begin = 0, end = 0;
  bool clean_file = false;  // private, of a file, not writable

  // False: the line is not the first one of a mapping.
  bool read(const std::string& line) {
    std::istringstream words(line);
    std::string range, rights, offset, device, inode, path;
    words >> range >> rights >> offset >> device >> inode >> path;
    const auto dash = range.find('-');
    if (dash == std::string::npos || rights.size() != 4) return false;
    begin = std::stoull(range.substr(0, dash), nullptr, 16);
    end = std::stoull(range.substr(dash + 1), nullptr, 16);
    clean_file = rights[1] == '-' && rights[3] == 'p' && !path.empty() && path[0] == '/';
    return true;
  }
};

}  // namespace

std::size_t give_back_start_pages() {
  std::ifstream smaps("/proc/self/smaps");
  Mapping mapping;
  std::size_t bytes = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (mapping.read(line)) continue;
    // Pages that were written (relocations, by now read-only) are nowhere else.
    if (!mapping.clean_file || line.rfind("Anonymous:", 0) != 0) continue;
    if (line.find(" 0 kB") == std::string::npos) continue;
    const std::size_t size = mapping.end - mapping.begin;
    if (::madvise(reinterpret_cast<void*>(mapping.begin), size, MADV_DONTNEED) == 0) bytes += size;
  }
  return bytes;
}

}  // namespace egw::runtime
