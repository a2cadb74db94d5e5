// AutoDatapath: `plugins.datapath.name: auto`. A datapath that chooses among the installed ones
// when it is first probed, and is the chosen one from then on. Used by the agent's process.
//
// Order: ebpf, netlink, iptables; before them the one that has programmed this node since the
// machine was booted, so that a restart changes nothing. The first whose probe forbids nothing is
// taken. Once chosen it stays until the process ends, whatever happens. docs/adr/0017.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/host/plugin_host.hpp"
#include "egw/runtime/datapath_record.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::runtime {

inline constexpr std::string_view kAutomatic = "auto";
inline constexpr std::array<std::string_view, 3> kAutomaticOrder{"ebpf", "netlink", "iptables"};

// Which of the folder's datapaths are tried, in which order; the others with the reason.
struct Candidates {
  std::vector<std::string> names;
  std::map<std::string, std::string> others;
};
[[nodiscard]] Candidates find_candidates(const host::PluginHost& plugins,
                                         const std::optional<DatapathRecord>& record,
                                         const std::string& boot);

class AutoDatapath final : public host::Datapath {
 public:
  // Opens those that are installed, which changes nothing. config: {"<name>": {...}}. An error when
  // none can be opened: it says of each why.
  static Result<std::unique_ptr<AutoDatapath>> open(host::PluginHost& plugins,
                                                    const RuntimeConfig& config,
                                                    const std::optional<DatapathRecord>& record,
                                                    Logger& log);

  // The chosen one with its own configuration; nullopt: none yet.
  [[nodiscard]] std::optional<PluginChoice> chosen() const;
  // Who has programmed this node since it was booted; empty: nobody.
  [[nodiscard]] const std::string& predecessor() const { return predecessor_; }
  // Name -> why it was not chosen.
  [[nodiscard]] const std::map<std::string, std::string>& others() const { return others_; }

  boost::asio::awaitable<Result<std::vector<host::ProbeFinding>>> probe(
      model::NodeConfig node) override;
  boost::asio::awaitable<Result<host::ApplyOutcome>> apply(model::Change change) override;
  boost::asio::awaitable<Result<std::vector<host::SysctlNeed>>> sysctls() override;
  boost::asio::awaitable<Result<nlohmann::json>> observe() override;
  boost::asio::awaitable<Result<std::vector<host::CounterValue>>> counters() override;
  // Before the choice: of the one that has programmed this node.
  boost::asio::awaitable<Result<void>> health() override;
  boost::asio::awaitable<Result<void>> forget(model::Address eip) override;
  boost::asio::awaitable<Result<void>> purge() override;
  [[nodiscard]] std::string layout() const override;
  [[nodiscard]] bool hands_over_to(const std::string& layout) const override;
  boost::asio::awaitable<Result<void>> hand_over(model::NodeConfig node) override;
  void on_drift(std::function<void(std::string what)> callback) override;
  [[nodiscard]] unsigned missed_deadlines() const override;

 private:
  struct Candidate {
    PluginChoice choice;
    std::unique_ptr<host::Datapath> datapath;
  };
  explicit AutoDatapath(Logger& log) : log_(log) {}
  void choose(std::size_t index);

  Logger& log_;
  std::vector<Candidate> candidates_;
  std::map<std::string, std::string> others_;
  std::string predecessor_;  // who has programmed this node since it was booted
  std::unique_ptr<host::Datapath> datapath_;
  PluginChoice choice_;
  std::function<void(std::string)> on_drift_;
};

}  // namespace egw::runtime
