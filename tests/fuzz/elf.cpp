// A file in the plugin folder, before any of its code runs.
#include "egw/host/elf_file.hpp"
#include "fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const egw::fuzz::MemoryFile file(egw::fuzz::text(data, size));
  const std::string wrong = egw::host::what_is_wrong_with_elf(file.path());
  egw::fuzz::require(wrong.find('\n') == std::string::npos, "a refusal is one line");
  return 0;
}
