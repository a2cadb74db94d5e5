// Gives back what only a start needs: pages of programs and libraries that configuration, schemas,
// TLS and probing have touched, about 9 MB of an agent. Called by the agent's process once its node
// is programmed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <istream>
#include <vector>

namespace egw::runtime {

// Every mapping of the program and of its libraries that this process can neither write nor has
// ever written leaves its memory; what is touched again comes back from the kernel's file cache,
// where it stays (a minor fault, less than a microsecond). Other threads may load and unload
// libraries meanwhile, and map what they like. Answers how many bytes of mappings were given back;
// 0 where /proc cannot be read.
std::size_t give_back_start_pages();

struct Pages {
  std::uintptr_t begin = 0, end = 0;
};
// Mappings of files, private and not writable, of which nothing was ever written: whose content is
// the file's. From the text of /proc/self/smaps.
[[nodiscard]] std::vector<Pages> clean_pages(std::istream& smaps);

}  // namespace egw::runtime
