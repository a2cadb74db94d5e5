// See store_record.hpp.
#include "egw/runtime/store_record.hpp"

#include <fstream>

#include "egw/runtime/datapath_record.hpp"
#include "egw/runtime/sysctls.hpp"

namespace egw::runtime {
namespace fs = std::filesystem;

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
  fs::remove(store_record(state_dir), error);
  if (!error) return {};
  return fail(Errc::kUnavailable, store_record(state_dir).string(),
              "cannot be removed: " + error.message());
}

}  // namespace egw::runtime
