// Looks at a plugin file as ELF before any of its code runs. Called by library.cpp.
#pragma once

#include <filesystem>
#include <string>

namespace egw::host {

// Empty: a shared object of this machine that exports the entry symbol. Else what is wrong with it
// and what to do, as the rest of a sentence that begins with the file ("is no ELF file: ...").
// Reads bounded amounts; never trusts an offset of the file.
[[nodiscard]] std::string what_is_wrong_with_elf(const std::filesystem::path& file);

}  // namespace egw::host
