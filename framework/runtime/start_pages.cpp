// Clean pages of programs and libraries out of this process (start_pages.hpp).
#include "egw/runtime/start_pages.hpp"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace egw::runtime {
namespace {

// The first line of a mapping in /proc/self/smaps: proc(5).
struct Mapping {
  Pages pages;
  bool file = false;  // private, not writable

  // False: the line is not such a one.
  bool read(const std::string& line) {
    std::istringstream words(line);
    std::string range, rights, offset, device, inode, path;
    words >> range >> rights >> offset >> device >> inode >> path;
    const auto dash = range.find('-');
    if (dash == std::string::npos || rights.size() != 4) return false;
    pages = {std::stoull(range.substr(0, dash), nullptr, 16),
             std::stoull(range.substr(dash + 1), nullptr, 16)};
    file = rights[1] == '-' && rights[3] == 'p' && !path.empty() && path[0] == '/';
    return true;
  }
};

bool is_zero(const std::string& line) { return line.find(" 0 kB") != std::string::npos; }

struct Given {
  std::vector<Pages> clean;
  std::size_t bytes = 0;
};

// For one program or library. The loader holds its lock: none of them is unloaded meanwhile. What a
// segment is not to be written by is not relocated either.
int give_back(dl_phdr_info* object, std::size_t /*size*/, void* data) noexcept {
  auto& given = *static_cast<Given*>(data);
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < object->dlpi_phnum; ++i) {
    const auto& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const std::uintptr_t first = object->dlpi_addr + segment.p_vaddr;
    const std::uintptr_t begin = first / page * page;
    const std::uintptr_t end = (first + segment.p_memsz + page - 1) / page * page;
    for (const Pages& p : given.clean) {
      if (p.begin < begin || p.end > end) continue;
      const std::size_t size = p.end - p.begin;
      // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel tells addresses as numbers
      if (::madvise(reinterpret_cast<void*>(p.begin), size, MADV_DONTNEED) == 0) {
        given.bytes += size;
      }
    }
  }
  return 0;
}

}  // namespace

// "Anonymous:" counts written pages that are in memory, "Swap:" those that are not.
std::vector<Pages> clean_pages(std::istream& smaps) {
  std::vector<Pages> out;
  Mapping mapping;
  bool unwritten = false;
  for (std::string line; std::getline(smaps, line);) {
    if (mapping.read(line)) {
      unwritten = false;
    } else if (line.rfind("Anonymous:", 0) == 0) {
      unwritten = is_zero(line);
    } else if (line.rfind("Swap:", 0) == 0 && mapping.file && unwritten && is_zero(line)) {
      out.push_back(mapping.pages);
    }
  }
  return out;
}

std::size_t give_back_start_pages() {
  std::ifstream smaps("/proc/self/smaps");
  Given given{clean_pages(smaps)};
  ::dl_iterate_phdr(give_back, &given);
  return given.bytes;
}

}  // namespace egw::runtime
