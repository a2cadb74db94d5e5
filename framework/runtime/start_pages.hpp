// Gives back what only a start needs: pages of programs and libraries that configuration, schemas,
// TLS and probing have touched, about 9 MB of an agent. Called by the agent's process once its node
// is programmed.
#pragma once

#include <cstddef>

namespace egw::runtime {

// Every mapping of a file that this process can neither write nor has ever written leaves its
// memory; what is touched again comes back from the kernel's file cache, where it stays (a minor
// fault, less than a microsecond). Answers how many bytes of mappings were given back; 0 where
// /proc cannot be read.
std::size_t give_back_start_pages();

}  // namespace egw::runtime
