// DatapathChange: a node that another datapath programmed before. After the new one has put its own
// in place the former takes its state away; what both share it hands over. Used by the agent's
// process. Which packets that costs: docs/operate.md, docs/adr/0017.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "egw/host/plugin_host.hpp"
#include "egw/runtime/datapath_record.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::runtime {

class DatapathChange {
 public:
  // Opens those on record that are not `expected`, the one that will run here as far as is known: a
  // plugin that hangs while it is opened must do so before the agent has begun.
  DatapathChange(std::filesystem::path state_dir, host::PluginHost& plugins, Logger& log,
                 const std::string& expected);

  // Run once, after the first apply of `chosen` for `node`. apply_all: has the chosen one compare
  // and program everything again. Former datapaths that could not remove their state are kept in
  // the record, and asked again at the next start.
  boost::asio::awaitable<void> run(DatapathRecord chosen, host::Datapath& datapath,
                                   model::NodeConfig node, std::function<void()> apply_all);

 private:
  // True when nothing of it is left.
  boost::asio::awaitable<bool> take_away(const ProgrammedDatapath& former,
                                         const std::string& layout, const std::string& name,
                                         const model::NodeConfig& node);
  void keep(const DatapathRecord& record);
  Result<std::unique_ptr<host::Datapath>> open(const PluginChoice& choice);

  std::filesystem::path state_dir_;
  host::PluginHost& plugins_;
  Logger& log_;
  std::map<std::string, std::unique_ptr<host::Datapath>> opened_;
};

// Has the opened datapath leave a node that `successor`, of this layout, goes on with: hand_over
// where both share a layout, else purge. True: handed over.
[[nodiscard]] boost::asio::awaitable<Result<bool>> leave_node(host::Datapath& former,
                                                              const std::string& layout,
                                                              model::NodeConfig node);

}  // namespace egw::runtime
