// Folders whose files are taken for this process's own words: of its state, and of its plugins'.
#pragma once

#include <filesystem>

#include "egw/model/result.hpp"

namespace egw::host {

// Whether it is a folder of the user that this process runs as, which nobody else can write.
// kInvalid, kDenied.
[[nodiscard]] Result<void> check_own_folder(const std::filesystem::path& path);

}  // namespace egw::host
