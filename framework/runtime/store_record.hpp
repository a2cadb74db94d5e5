// Which store has this node been programmed from, since it was booted? Kept in the state folder, so
// that a restarted agent does not take another, empty store as an order to remove everything
// (docs/adr/0030-another-store.md). Written by the agent, removed by a purge.
#pragma once

#include <filesystem>
#include <string>

#include "egw/model/result.hpp"

namespace egw::runtime {

[[nodiscard]] std::filesystem::path store_record(const std::filesystem::path& state_dir);
// Empty: from none, or before the last boot, which empties the kernel.
[[nodiscard]] std::string read_store_record(const std::filesystem::path& state_dir);
// store: empty removes the record.
[[nodiscard]] Result<void> write_store_record(const std::filesystem::path& state_dir,
                                              const std::string& store);

}  // namespace egw::runtime
