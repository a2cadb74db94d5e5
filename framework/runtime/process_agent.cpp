// run_agent: the agent with its plugins, announcer, uplink watch and servers (process.hpp).
#include <algorithm>
#include <boost/asio/post.hpp>
#include <fstream>
#include <utility>

#include "egw/host/plugin_host.hpp"
#include "egw/net/announcer.hpp"
#include "egw/net/boot_drop.hpp"
#include "egw/net/uplink.hpp"
#include "egw/runtime/admin_client.hpp"
#include "egw/runtime/agent.hpp"
#include "egw/runtime/auto_datapath.hpp"
#include "egw/runtime/datapath_change.hpp"
#include "egw/runtime/endpoints.hpp"
#include "egw/runtime/namesake.hpp"
#include "egw/runtime/process.hpp"
#include "egw/runtime/process_parts.hpp"
#include "egw/runtime/spawn.hpp"
#include "egw/runtime/start_pages.hpp"
#include "egw/runtime/store_record.hpp"
#include "egw/runtime/sysctls.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

namespace {

constexpr std::int64_t kUplinkAgainMs = 2000;

class RealAnnouncer final : public AnnouncerPort {
 public:
  explicit RealAnnouncer(std::unique_ptr<net::Announcer> announcer)
      : announcer_(std::move(announcer)) {}
  void set(std::vector<net::AnnouncedEip> eips) override { announcer_->set(std::move(eips)); }
  void set_gateway_macs(std::vector<model::Mac> macs) override {
    announcer_->set_gateway_macs(std::move(macs));
  }
  void confirm(const model::Address& address) override { announcer_->confirm(address); }
  void mute(bool on) override { announcer_->mute(on); }
  [[nodiscard]] net::AnnouncerCounters counters() const override { return announcer_->counters(); }
  [[nodiscard]] std::vector<model::Address> silent() const override { return announcer_->silent(); }
  [[nodiscard]] std::vector<net::LostSubnet> lost_subnets() const override {
    return announcer_->lost_subnets();
  }
  [[nodiscard]] std::vector<model::Mac> port_macs() const override {
    return announcer_->port_macs();
  }

 private:
  std::unique_ptr<net::Announcer> announcer_;
};

// Follows the uplink by the method that the agent asks for, and tries again where that fails.
class UplinkFollower {
 public:
  UplinkFollower(asio::any_io_executor executor, Clock& clock, Logger& log)
      : executor_(std::move(executor)), clock_(clock), log_(log) {}

  void to(Agent* agent) { agent_ = agent; }
  void follow(const std::string& method) {
    method_ = method;
    watch_.reset();
    again_.reset();
    ++round_;
    auto watch = net::UplinkWatch::start(method, [this, round = round_](const auto& state) {
      asio::post(executor_, [this, round, state] {
        if (round == round_ && agent_ != nullptr) agent_->on_uplink(state);
      });
    });
    if (watch) {
      watch_ = std::move(*watch);
      return;
    }
    log_.error("cannot follow the uplink", {{"error", watch.error().to_string()}});
    asio::post(executor_, [this, round = round_] {
      if (round == round_ && agent_ != nullptr) agent_->on_uplink({});
    });
    again_ = clock_.call_at(clock_.steady_ms() + kUplinkAgainMs, [this] { follow(method_); });
  }
  void stop() {
    agent_ = nullptr;
    again_.reset();
    watch_.reset();
  }

 private:
  asio::any_io_executor executor_;
  Clock& clock_;
  Logger& log_;
  Agent* agent_ = nullptr;
  std::string method_;
  unsigned round_ = 0;
  std::unique_ptr<net::UplinkWatch> watch_;
  std::unique_ptr<Timer> again_;
};

// The datapath that the configuration names, or the one that is chosen.
class ChosenDatapath {
 public:
  Result<void> open(host::PluginHost& plugins, const RuntimeConfig& config, Logger& log) {
    configured_ = config.datapath;
    if (configured_.name == kAutomatic) {
      auto opened =
          AutoDatapath::open(plugins, config, read_datapath_record(config.state_dir), log);
      if (!opened) return tl::unexpected(opened.error());
      automatic_ = opened->get();
      datapath_ = std::move(*opened);
      return {};
    }
    auto opened =
        plugins.open_datapath(configured_.name, configured_.config,
                              datapath_dir(config.state_dir, configured_.name), config.state_dir);
    if (!opened) return tl::unexpected(opened.error());
    datapath_ = std::move(*opened);
    return {};
  }
  [[nodiscard]] host::Datapath& get() const { return *datapath_; }
  // Precondition of the name in it: it has been probed.
  [[nodiscard]] DatapathRecord record() const {
    DatapathRecord out;
    out.boot = this_boot();
    out.automatic = automatic_ != nullptr;
    if (automatic_ == nullptr) {
      out.now.choice = configured_;
    } else if (const auto chosen = automatic_->chosen()) {
      out.now.choice = *chosen;
      out.others = automatic_->others();
    }
    return out;
  }
  // The name that will be in use, as far as it is known before the first probe.
  [[nodiscard]] std::string expected() const {
    return automatic_ == nullptr ? configured_.name : automatic_->predecessor();
  }
  // For the node's status: empty while none is chosen.
  [[nodiscard]] DatapathInUse in_use() const {
    DatapathInUse out{configured_.name, automatic_ != nullptr, {}};
    if (automatic_ == nullptr) return out;
    const auto chosen = automatic_->chosen();
    out.name = chosen ? chosen->name : std::string();
    out.others = automatic_->others();
    return out;
  }

 private:
  PluginChoice configured_;
  std::unique_ptr<host::Datapath> datapath_;
  AutoDatapath* automatic_ = nullptr;
};

// agent.bootDrop: pods wait for the first programming since the machine booted. Not after a mere
// restart of the agent: then the kernel still holds what the last one programmed.
class BootDrop {
 public:
  BootDrop(const RuntimeConfig& config, Logger& log)
      : wanted_(config.settings.boot_drop), record_(boot_record(config.state_dir)), log_(log) {
    boot_ = this_boot();
    std::string last;
    std::ifstream(record_) >> last;
    programmed_ = !boot_.empty() && last == boot_;
  }
  [[nodiscard]] bool wanted() const { return wanted_ && !programmed_; }

  void hold(const std::vector<model::Prefix>& pods, const std::vector<model::Prefix>& inside) {
    if (const auto raised = net::raise_boot_drop(pods, inside); !raised) {
      log_.error("pods cannot be held until this node is programmed",
                 {{"error", raised.error().to_string()}});
    } else {
      log_.info("pods reach nothing outside until this node is programmed");
    }
  }
  void programmed() {
    const auto lowered = net::lower_boot_drop();
    if (!lowered) {
      log_.error("pods are still held", {{"error", lowered.error().to_string()}});
    } else if (*lowered != 0) {
      log_.info("pods are no longer held");
    }
    if (const auto kept = write_file(record_, boot_ + "\n"); !kept) {
      log_.warn("cannot note that this node is programmed", {{"error", kept.error().to_string()}});
    }
  }

 private:
  bool wanted_;
  std::filesystem::path record_;
  Logger& log_;
  std::string boot_;
  bool programmed_ = false;
};

Result<std::unique_ptr<net::Announcer>> start_announcer(const model::Settings& settings,
                                                        Process& process, Agent** agent) {
  net::AnnouncerOptions options;
  options.exclude = settings.announce_exclude;
  options.tunnel_device = settings.vxlan_name;
  Logger& log = process.log();
  net::Announcer::OnClaim on_claim = [executor = process.executor(),
                                      agent](const net::Claim& claim) {
    asio::post(executor, [agent, claim] {
      if (*agent != nullptr) (*agent)->on_claim(claim);
    });
  };
  net::Announcer::OnPorts on_ports = [executor = process.executor(), agent] {
    asio::post(executor, [agent] {
      if (*agent != nullptr) (*agent)->on_ports();
    });
  };
  net::Announcer::Log on_log = [&log](int level, const std::string& message) {
    log.log(static_cast<LogLevel>(std::clamp(level, 0, 3)), message, {{"part", "announcer"}});
  };
  return net::Announcer::start(std::move(options), std::move(on_claim), std::move(on_ports),
                               std::move(on_log));
}

asio::awaitable<void> serve_node(Agent& agent, asio::io_context& loop) {
  co_await agent.run();
  loop.stop();
}

Result<void> take_state_dir(const RuntimeConfig& config, FolderLock& lock) {
  if (auto made = make_own_state_dir(config.state_dir); !made) return made;
  auto taken = lock.take(config.state_dir / "agent.lock");
  if (taken || taken.error().code != Errc::kConflict) return taken;
  return fail(Errc::kUnavailable, config.state_dir.string(),
              "another agent runs with this state folder: stop that one or set another folder");
}

AgentOptions options_of(const RuntimeConfig& config) {
  AgentOptions options;
  options.settings = config.settings;
  options.node_name = config.node_name;
  options.identity = agent_identity();
  options.state_dir = config.state_dir;
  options.drain_timeout_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(config.drain_timeout).count();
  return options;
}

// After an uninstall has purged this node. An error while former datapaths have state here.
Result<void> forget_what_was_programmed(const std::filesystem::path& state_dir) {
  if (auto lowered = net::lower_boot_drop(); !lowered) return tl::unexpected(lowered.error());
  std::string left;
  if (const auto record = read_datapath_record(state_dir)) {
    for (const auto& former : record->former) left += " " + former.choice.name;
  }
  if (left.empty()) {
    remove_datapath_record(state_dir);
    return forget_programming(state_dir);
  }
  return fail(Errc::kUnavailable, "datapaths used before:" + left,
              "have left their state on this node: put their libraries back and restart the "
              "agent, or run `egw purge --datapath NAME` with them");
}

void stop_agent(const RuntimeConfig& config, Process& process, Agent& agent, unsigned times) {
  const bool drain = config.drain_on_stop && times == 1;
  process.watchdog().arm(drain ? config.drain_timeout + kStopTime : kStopTime);
  agent.stop(drain);
}

void let_hold_pods(BootDrop& boot_drop, AgentPorts& ports) {
  if (!boot_drop.wanted()) return;
  ports.hold_pods = [&boot_drop](const auto& pods, const auto& inside) {
    boot_drop.hold(pods, inside);
  };
}

HealthChecks health_of(Agent& agent) {
  HealthChecks checks;
  checks.ready = [&agent] { return agent.ready(); };
  checks.started = [&agent] { return agent.started(); };
  return checks;
}

}  // namespace

int run_agent(const RuntimeConfig& config) {
  Process process(config, "agent");
  FolderLock lock;
  if (auto taken = take_state_dir(config, lock); !taken) return process.refuse(taken.error());
  host::PluginHost plugins(config.plugin_dir, process.executor(), process.plugin_log());
  auto store = process.open_store(plugins);
  if (!store) return process.refuse(store.error());
  ChosenDatapath datapath;
  if (auto opened = datapath.open(plugins, config, process.log()); !opened) {
    return process.refuse(opened.error());
  }
  NamespaceLock kernel(process.loop());
  if (auto alone =
          kernel.take(kAgentLock, "two would program the same kernel; stop one", process.log());
      !alone) {
    return process.refuse(alone.error());
  }
  DatapathChange change(config.state_dir, plugins, process.log(), datapath.expected());

  Agent* claims_go_to = nullptr;
  auto announcer = start_announcer(config.settings, process, &claims_go_to);
  if (!announcer) return process.refuse(announcer.error());
  RealAnnouncer announcer_port(std::move(*announcer));
  UplinkFollower uplink(process.executor(), process.clock(), process.log());

  Metrics metrics("agent", kVersion);
  const auto pinger = make_pinger(process.executor(), process.clock());
  BootDrop boot_drop(config, process.log());
  AgentPorts ports{**store, datapath.get(), announcer_port,
                   [&uplink](const std::string& method) { uplink.follow(method); },
                   [&] {
                     boot_drop.programmed();
                     give_back_start_pages();
                     Agent& on = *claims_go_to;
                     spawn(process.executor(), change.run(datapath.record(), datapath.get(),
                                                          on.node(), [&on] { on.apply_all(); }));
                   }};
  ports.datapath_in_use = [&datapath] { return datapath.in_use(); };
  ports.pinger = pinger.get();
  ports.on_purged = [&config] { return forget_what_was_programmed(config.state_dir); };
  let_hold_pods(boot_drop, ports);
  Agent agent(process.executor(), process.clock(), process.log(), metrics, options_of(config),
              std::move(ports));
  claims_go_to = &agent;
  uplink.to(&agent);

  auto served =
      process.serve(health_endpoints(health_of(agent)), metrics_endpoints(metrics, &agent),
                    admin_endpoints(agent, process.log()), admin_socket(config.state_dir, "agent"));
  if (!served) return process.refuse(served.error());
  process.on_stop([&](unsigned times) { stop_agent(config, process, agent, times); });
  process.log().info("agent started", {{"node", config.node_name}, {"version", kVersion}});
  spawn(process.executor(), serve_node(agent, process.loop()));
  const int code = process.run();
  uplink.stop();
  claims_go_to = nullptr;
  return code;
}

}  // namespace egw::runtime
