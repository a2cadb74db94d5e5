// See store_record.hpp.
#include "egw/runtime/store_record.hpp"

#include <fstream>

#include "egw/model/node_state_codec.hpp"
#include "egw/runtime/datapath_record.hpp"
#include "egw/runtime/sysctls.hpp"

namespace egw::runtime {
namespace fs = std::filesystem;

namespace {
Result<void> remove_record(const fs::path& record) {
  std::error_code error;
  fs::remove(record, error);
  if (!error) return {};
  return fail(Errc::kUnavailable, record.string(), "cannot be removed: " + error.message());
}
}  // namespace

fs::path store_record(const fs::path& state_dir) { return state_dir / "programmed-store"; }

std::string read_store_record(const fs::path& state_dir) {
  std::ifstream in(store_record(state_dir));
  std::string boot;
  std::string store;
  in >> boot;
  std::getline(in >> std::ws, store);
  return boot == this_boot() ? store : std::string();
}

Result<void> write_store_record(const fs::path& state_dir, const std::string& store) {
  if (!store.empty()) return write_file(store_record(state_dir), this_boot() + "\n" + store + "\n");
  std::error_code error;
  fs::remove(served_record(state_dir), error);
  return remove_record(store_record(state_dir));
}

fs::path boot_record(const fs::path& state_dir) { return state_dir / "programmed-boot"; }

Result<void> forget_programming(const fs::path& state_dir) {
  if (auto removed = remove_record(boot_record(state_dir)); !removed) return removed;
  return write_store_record(state_dir, {});
}

fs::path served_record(const fs::path& state_dir) { return state_dir / "served-eips"; }

// The boot; then one line for each: eip ADDRESS ID, gateway MAC.
ServedRecord read_served_record(const fs::path& state_dir) {
  std::ifstream in(served_record(state_dir));
  std::string boot;
  ServedRecord out;
  if (!(in >> boot) || boot != this_boot()) return out;
  for (std::string word, value; in >> word >> value;) {
    if (word == "gateway") {
      if (const auto mac = model::parse_mac(value)) out.gateway_macs.push_back(*mac);
      continue;
    }
    core::OwnedEip eip;
    const auto address = model::Address::parse(value);
    if (word != "eip" || !address || !(in >> eip.id)) break;
    eip.address = *address;
    out.eips.push_back(eip);
  }
  return out;
}

Result<void> write_served_record(const fs::path& state_dir, const ServedRecord& record) {
  std::string text = this_boot() + "\n";
  for (const auto& eip : record.eips) {
    text += "eip " + eip.address.to_string() + " " + std::to_string(eip.id) + "\n";
  }
  for (const auto& mac : record.gateway_macs) text += "gateway " + model::format_mac(mac) + "\n";
  return write_file(served_record(state_dir), text, false);
}

}  // namespace egw::runtime
