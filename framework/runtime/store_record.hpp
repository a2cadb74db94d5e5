// Which store has this node been programmed from, since it was booted? Kept in the state folder, so
// that a restarted agent does not take another, empty store as an order to remove everything
// (docs/adr/0030-another-store.md). Written by the agent, removed by a purge.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "egw/core/compile.hpp"
#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::runtime {

[[nodiscard]] std::filesystem::path store_record(const std::filesystem::path& state_dir);
// Empty: from none, or before the last boot, which empties the kernel.
[[nodiscard]] std::string read_store_record(const std::filesystem::path& state_dir);
// store: empty removes the record, and that of what was served.
[[nodiscard]] Result<void> write_store_record(const std::filesystem::path& state_dir,
                                              const std::string& store);
// The boot in which this node was last programmed, for agent.bootDrop (process_agent.cpp).
[[nodiscard]] std::filesystem::path boot_record(const std::filesystem::path& state_dir);
// Removes these records: nothing is left in the kernel.
[[nodiscard]] Result<void> forget_programming(const std::filesystem::path& state_dir);

// What the node answers for, by that store, and who may take it over: for an agent that is
// restarted while the store is another.
struct ServedRecord {
  std::vector<core::OwnedEip> eips;
  std::vector<model::Mac> gateway_macs;  // of the other nodes
  friend bool operator==(const ServedRecord&, const ServedRecord&) = default;
};
[[nodiscard]] std::filesystem::path served_record(const std::filesystem::path& state_dir);
// Empty: nothing, or before the last boot.
[[nodiscard]] ServedRecord read_served_record(const std::filesystem::path& state_dir);
[[nodiscard]] Result<void> write_served_record(const std::filesystem::path& state_dir,
                                               const ServedRecord& record);

}  // namespace egw::runtime
