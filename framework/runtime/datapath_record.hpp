// The datapath that programmed this node last, in the state folder (datapath.json): what a change
// of datapath, `datapath: auto` and a purge go by. Used by the agent's process, run_purge and `egw
// plugin list`.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "egw/model/result.hpp"
#include "egw/runtime/config.hpp"

namespace egw::runtime {

struct ProgrammedDatapath {
  PluginChoice choice;
  // What it said it had in the kernel (observe), without the long lists: for when its library is
  // gone and cannot be asked any more.
  nlohmann::json holds = nlohmann::json::object();
};

struct DatapathRecord {
  ProgrammedDatapath now;
  std::string boot;                           // boot_id of the machine when it programmed
  bool automatic = false;                     // chosen by `datapath: auto`
  std::map<std::string, std::string> others;  // auto: name -> why it was not chosen
  std::vector<ProgrammedDatapath> former;     // have not removed their state yet
};

// What programs this node, for people.
struct DatapathInUse {
  std::string name;                           // empty: none has been chosen yet
  bool automatic = false;                     // chosen by `datapath: auto`
  std::map<std::string, std::string> others;  // name -> why not
};

// Where a datapath has its own files.
[[nodiscard]] std::filesystem::path datapath_dir(const std::filesystem::path& state_dir,
                                                 const std::string& name);
// nullopt: no datapath has programmed this node, or the file is unreadable.
[[nodiscard]] std::optional<DatapathRecord> read_datapath_record(
    const std::filesystem::path& state_dir);
// What makes the file unreadable, for people; empty: it can be read, or there is none.
[[nodiscard]] std::string datapath_record_fault(const std::filesystem::path& state_dir);
[[nodiscard]] std::filesystem::path datapath_record(const std::filesystem::path& state_dir);
[[nodiscard]] Result<void> write_datapath_record(const std::filesystem::path& state_dir,
                                                 const DatapathRecord& record);
void remove_datapath_record(const std::filesystem::path& state_dir);

// `observed` without what is long: endpoints, egresses, and lists of more than 20.
[[nodiscard]] nlohmann::json what_it_holds(nlohmann::json observed);
// The machine's boot_id; empty when it cannot be read.
[[nodiscard]] std::string this_boot();

}  // namespace egw::runtime
