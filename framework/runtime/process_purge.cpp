// run_purge: nothing of egw stays in this node's kernel (process.hpp).
#include <algorithm>
#include <utility>

#include "egw/net/boot_drop.hpp"
#include "egw/runtime/auto_datapath.hpp"
#include "egw/runtime/datapath_change.hpp"
#include "egw/runtime/process.hpp"
#include "egw/runtime/process_parts.hpp"
#include "egw/runtime/spawn.hpp"
#include "egw/runtime/store_record.hpp"
#include "egw/runtime/sysctls.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

namespace {

// What a former datapath may have to know to tell its own from what is shared.
model::NodeConfig node_of(const RuntimeConfig& config) {
  model::NodeConfig node;
  const model::Settings& s = config.settings;
  node.name = config.node_name;
  node.enable_ipv4 = s.enable_ipv4;
  node.enable_ipv6 = s.enable_ipv6;
  node.tunnel_device = s.vxlan_name;
  node.tunnel_vni = s.vxlan_id;
  node.tunnel_port = s.vxlan_port;
  node.slot_mask = s.slot_mask;
  node.ct_mask = s.ct_mask;
  return node;
}

// layout: of the datapath that goes on serving this node; empty: none does.
asio::awaitable<void> purge_one(host::Datapath& datapath, std::string layout,
                                model::NodeConfig node, Result<void>& result,
                                asio::io_context& loop) {
  const auto left = co_await leave_node(datapath, layout, std::move(node));
  result = left ? Result<void>{} : tl::unexpected(left.error());
  loop.stop();
}

class Purge {
 public:
  Purge(const RuntimeConfig& config, Process& process)
      : config_(config),
        process_(process),
        plugins_(config.plugin_dir, process.executor(), process.plugin_log()),
        record_(read_datapath_record(config.state_dir)) {
    const std::string fault = datapath_record_fault(config.state_dir);
    if (fault.empty()) return;
    process.log().warn(
        "which datapath has programmed this node is not known: without --datapath the configured "
        "one is purged",
        {{"file", datapath_record(config.state_dir).string()}, {"error", fault}});
  }

  Result<void> run(const std::string& wanted) {
    const std::string serving = record_ ? record_->now.choice.name : std::string();
    const bool former_only =
        wanted != "all" && !wanted.empty() && !serving.empty() && wanted != serving;
    const std::vector<PluginChoice> choices = chosen(wanted);
    if (choices.empty()) {
      return fail(Errc::kInvalid, config_.plugin_dir.string(),
                  "has no datapath plugin that can be loaded: nothing was purged; name the folder "
                  "with --plugin-dir");
    }
    // One that fails must not keep the others here; what belongs to all stays as long as one does.
    Result<void> failed;
    for (const PluginChoice& choice : choices) {
      auto done = one(choice, former_only ? layout_of(serving) : std::string());
      if (done) continue;
      if (failed) {
        failed = std::move(done);
      } else {
        process_.log().error("not purged",
                             {{"datapath", choice.name}, {"error", done.error().to_string()}});
      }
    }
    if (!failed || former_only) return failed;
    if (auto removed = forget_programming(config_.state_dir); !removed) return removed;
    if (auto lowered = net::lower_boot_drop(); !lowered) return tl::unexpected(lowered.error());
    Sysctls sysctls("/proc/sys", config_.state_dir / "sysctls.json", true, process_.log());
    return sysctls.restore();
  }

 private:
  PluginChoice choice_of(const std::string& name) const {
    PluginChoice choice{name};
    const auto& configured = config_.datapath;
    if (name == configured.name) choice.config = configured.config;
    if (configured.name == kAutomatic && configured.config.contains(name)) {
      choice.config = configured.config[name];
    }
    if (!record_) return choice;
    if (record_->now.choice.name == name) return record_->now.choice;
    for (const ProgrammedDatapath& former : record_->former) {
      if (former.choice.name == name) return former.choice;
    }
    return choice;
  }

  // Those that have programmed this node, the present one last.
  std::vector<PluginChoice> recorded() const {
    std::vector<PluginChoice> out;
    if (!record_) return out;
    for (const ProgrammedDatapath& former : record_->former) out.push_back(former.choice);
    out.push_back(record_->now.choice);
    return out;
  }

  std::vector<PluginChoice> chosen(const std::string& wanted) const {
    std::vector<PluginChoice> out;
    if (wanted == "all" || (wanted.empty() && !record_ && config_.datapath.name == kAutomatic)) {
      for (const auto& plugin : plugins_.list()) {
        if (!plugin.problem.empty()) {
          process_.log().warn("cannot be loaded; what it has programmed, if anything, stays",
                              {{"plugin", plugin.file.string()}, {"error", plugin.problem}});
        } else if (plugin.kind == host::PluginKind::kDatapath) {
          out.push_back(choice_of(plugin.name));
        }
      }
      for (const PluginChoice& choice : recorded()) {  // they may be among those
        const bool there = std::any_of(out.begin(), out.end(), [&](const PluginChoice& known) {
          return known.name == choice.name;
        });
        if (!there) out.push_back(choice);
      }
    } else if (!wanted.empty()) {
      out.push_back(choice_of(wanted));
    } else if (record_) {
      out = recorded();
    } else {
      out.push_back(choice_of(config_.datapath.name));
    }
    return out;
  }

  std::string layout_of(const std::string& name) const {
    const auto info = plugins_.inspect(host::PluginKind::kDatapath, name);
    return info ? info->layout : std::string();
  }

  Result<void> one(const PluginChoice& choice, std::string layout) {
    auto opened =
        plugins_.open_datapath(choice.name, choice.config,
                               datapath_dir(config_.state_dir, choice.name), config_.state_dir);
    if (!opened) return tl::unexpected(opened.error());
    Result<void> result;
    spawn(process_.executor(),
          purge_one(**opened, std::move(layout), node_of(config_), result, process_.loop()));
    process_.loop().restart();
    process_.loop().run();
    if (!result) return result;
    process_.log().info("purged", {{"datapath", choice.name}});
    forget(choice.name);
    return {};
  }

  // Takes it off the record; what could not be purged stays on it for the next time.
  void forget(const std::string& name) {
    if (!record_) return;
    std::erase_if(record_->former,
                  [&](const ProgrammedDatapath& d) { return d.choice.name == name; });
    if (record_->now.choice.name == name) {
      record_->now = ProgrammedDatapath{};
      record_->automatic = false;
      if (!record_->former.empty()) {
        record_->now = std::move(record_->former.back());
        record_->former.pop_back();
      }
    }
    if (record_->now.choice.name.empty()) {
      record_.reset();
      remove_datapath_record(config_.state_dir);
    } else if (auto kept = write_datapath_record(config_.state_dir, *record_); !kept) {
      process_.log().warn("cannot note what is purged", {{"error", kept.error().to_string()}});
    }
  }

  const RuntimeConfig& config_;
  Process& process_;
  host::PluginHost plugins_;
  std::optional<DatapathRecord> record_;
};

}  // namespace

Result<void> run_purge(const RuntimeConfig& config, const std::string& datapath) {
  Process process(config, "purge");
  if (auto made = make_own_state_dir(config.state_dir); !made) return made;
  FolderLock lock;
  if (auto taken = lock.take(config.state_dir / "agent.lock"); !taken) {
    if (taken.error().code != Errc::kConflict) return taken;
    return fail(Errc::kConflict, config.state_dir.string(),
                "an agent runs with this state folder: stop it first, or it would program the "
                "node again");
  }
  NamespaceLock kernel(process.loop());
  if (auto alone = kernel.take(kAgentLock,
                               "stop it first, or it would program the node again, and name its "
                               "folder with --config or --state-dir",
                               process.log());
      !alone) {
    return alone;
  }
  return Purge(config, process).run(datapath);
}

}  // namespace egw::runtime
