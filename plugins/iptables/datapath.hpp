// The iptables datapath: libnl for device, neighbours, routes and rules; iptables-restore and ipset
// for everything that looks at packets. The way of a packet: README.md. One instance, one thread
// (the host's), plus the threads of Sweeper, Monitor and Watch.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/conntrack.hpp"
#include "common/flows.hpp"
#include "common/monitor.hpp"
#include "common/plan.hpp"
#include "common/rtnl.hpp"
#include "common/tunnel.hpp"
#include "companion.hpp"
#include "egw/sdk/datapath.hpp"
#include "ipset.hpp"
#include "routing.hpp"
#include "rules.hpp"
#include "sets.hpp"
#include "watch.hpp"
#include "xtables.hpp"

namespace egw::iptables {

// The plugin's own configuration. Throws sdk::Failure that names the key.
[[nodiscard]] Config parse_config(std::string_view json);

class IptablesDatapath : public sdk::Datapath {
 public:
  IptablesDatapath(std::string_view config, std::string_view state_dir, sdk::DatapathHost host);
  ~IptablesDatapath() override;
  static sdk::Status probe(std::string_view config, const sdk::NodeConfig& node,
                           sdk::ProbeSink& out);

  sdk::Status apply(const sdk::Change& change, sdk::ApplyReport& report) override;
  sdk::Status sysctls(sdk::SysctlSink& out) override;
  sdk::Outcome<std::string> observe() override;
  sdk::Status counters(sdk::CounterSink& out) override;
  sdk::Status health() override;
  sdk::Status forget(const sdk::Address& eip) override;
  sdk::Status purge() override;

 private:
  using Served = std::vector<std::pair<std::uint32_t, sdk::Address>>;
  using AllRules = std::array<FamilyRules, 2>;
  struct Step;  // what one change knows

  sdk::Status apply_all(const sdk::Change& change, sdk::ApplyReport& report);
  sdk::Status apply_step(const sdk::Change& change, sdk::ApplyReport& report);
  sdk::Status step_egresses(Step& step);
  sdk::Status step_elements(Step& step);
  sdk::Status step_structure(Step& step);
  void choose_backend();
  void choose_companion();
  void learn();
  // Our chains in a backend.
  static sdk::Status clear_backend(const Xtables& xtables);
  // Those from before the backend was chosen anew.
  void clear_other_backend();
  // read: the kernel has been read for this change; else what we wrote last is taken for granted.
  sdk::Status program(Step& step, SetPlan& sets, bool read);
  sdk::Status program_filters(Step& step, const SetPlan& sets, bool read);
  sdk::Status program_companion(Step& step, bool read, bool lean);
  [[nodiscard]] bool lean(const common::Plan& plan) const { return ingress_ && !plan.serves(); }
  sdk::Status program_tunnel(Step& step);
  void program_routing(Step& step, bool read);
  [[nodiscard]] AllRules rules_wanted(const common::Plan& plan,
                                      const std::array<ClassGroups, 2>& classes) const;
  sdk::Status program_rules(AllRules wanted, bool read, common::Repairs& repairs);
  void look_at_rules(const common::Plan& plan);
  sdk::Status program_rules_in_order(Step& step, const SetPlan& sets, bool read);
  [[nodiscard]] bool unruled(Table t, const PodMarks& marks) const;
  [[nodiscard]] PodMarks marks_of(Table t, const SetPlan& sets, const std::string& target) const;
  void program_new_pods(Step& step, const SetPlan& sets);
  void program_pods(Step& step, const SetPlan& sets);
  void program_changed_pods(Step& step, const SetPlan& sets);
  void open_tunnel(const Step& step);
  void update_hops(Step& step);
  void compare_sources(Step& step) const;
  void compare_with_sets(Step& step, const SetPlan& sets) const;
  // Connections of EIPs that come to this node: bound anew before their packets come this way.
  void welcome_flows(const Step& step);
  void settle_flows(Step& step, bool written);
  void finish(Step& step, sdk::ApplyReport& report);
  void report_waiting(const Step& step, sdk::ApplyReport& report) const;
  void watch_kernel(const sdk::State& state, const common::Plan& plan);
  void watch_filters();
  void observe_owners(nlohmann::json& egresses);
  void observe_rules(nlohmann::json& egresses, nlohmann::json& tables);
  [[nodiscard]] common::Bound bound();
  // Whether the kernel holds nothing of ours.
  [[nodiscard]] bool untouched();
  sdk::Status remove_all(common::Bound& held);
  void take_back();
  static sdk::Status purge_backend(Backend backend, common::Bound& held);
  sdk::Status purge_companion(common::Bound& held);

  // The backend that this process works with; kAuto: none yet. For probe(), which has no instance
  // and is asked again and again: to choose anew it would read all rules of the host.
  static std::atomic<Backend> working_;

  sdk::DatapathHost host_;
  Config config_;
  common::NetlinkSocket route_;
  Ipset ipset_;
  std::optional<Xtables> xtables_;
  std::unique_ptr<Companion> companion_;  // none: iptables does it all
  bool egress_ = false;                   // it has the tunnel device's hook
  bool ingress_ = false;                  // chains can stand where the wire's packets come in
  bool told_ = false;                     // why there is none
  common::Tunnel tunnel_;
  Sets sets_;
  common::Unswept unswept_{true};
  common::Sweeper sweeper_;
  std::unique_ptr<common::Monitor> monitor_;
  std::unique_ptr<Watch> watch_;

  sdk::DatapathState held_;
  std::optional<common::Plan> plan_;  // as programmed; empty: nothing, or in doubt
  std::optional<SetPlan> set_plan_;
  common::Numbering numbering_;
  std::array<Groups, 2> groups_;
  Marks marks_;
  std::uint32_t mtu_ = 1450;
  int device_ = 0;
  bool alone_ = false;              // the other backend has been looked at
  std::set<common::Route> routes_;  // as programmed
  std::set<common::Rule> rules_;
  AllRules written_;                              // as given to iptables-restore
  std::array<std::array<Chains, 3>, 2> learned_;  // the same as iptables-save prints it
  std::array<std::array<XtSaved, 3>, 2> saved_;   // as last read
  std::shared_ptr<const Filters> filters_;        // both, for watch_
  // What the rules in the kernel are, written by us or found there:
  bool standing_ = false;                               // they judge pods
  bool lean_ = false;                                   // nothing of ours is in raw
  std::array<ClassGroups, 2> ruled_;                    // classes that they know
  std::optional<std::array<Served, 2>> ruled_sources_;  // ids that they serve
  std::string waiting_;             // not empty: they are not the wanted ones, and why
  std::array<DropTally, 2> drops_;  // by family
  common::Bound bound_;  // by what a purge has taken away, as long as it is not forgotten
};

}  // namespace egw::iptables
