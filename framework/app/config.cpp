// Configuration (config.hpp): from the merged tree to values, and the checks that a schema cannot
// express.
#include "egw/app/config.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <regex>

#include "egw/app/config_tree.hpp"
#include "egw/app/yaml.hpp"
#include "egw/model/names.hpp"
#include "egw/runtime/auto_datapath.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfig = 1024UL * 1024;

// Reads typed values out of a tree that the schema has accepted; the first fault is kept.
class Reader {
 public:
  explicit Reader(const ConfigTree& tree) : tree_(tree) {}

  template <class T>
  void get(const std::string& path, T& out) const {
    if (tree_.has(path)) out = tree_.at(path).get<T>();
  }
  void seconds(const std::string& path, std::chrono::milliseconds& out) const {
    if (!tree_.has(path)) return;
    out = std::chrono::milliseconds(std::llround(tree_.at(path).get<double>() * 1000.0));
  }
  void prefix(const std::string& path, model::Family family, model::Prefix& out) {
    if (!tree_.has(path)) return;
    auto parsed = model::Prefix::parse(tree_.at(path).get<std::string>());
    if (!parsed) return refuse(path, parsed.error().message);
    const bool v4 = family == model::Family::kV4;
    if (parsed->family() != family) {
      return refuse(path, v4 ? "is an IPv6 prefix; expected an IPv4 one"
                             : "is an IPv4 prefix; expected an IPv6 one");
    }
    if (parsed->length() > (v4 ? 30U : 126U)) {
      return refuse(path, fmt::format("is too small for a tunnel network; expected /{} or shorter",
                                      v4 ? 30 : 126));
    }
    out = *parsed;
  }
  // A number or "0x..." text whose set bits are one run of min_bits..max_bits.
  void mask(const std::string& path, unsigned min_bits, unsigned max_bits, std::uint32_t& out) {
    if (!tree_.has(path)) return;
    const json& value = tree_.at(path);
    const auto mask = value.is_string() ? static_cast<std::uint32_t>(std::stoul(
                                              value.get<std::string>().substr(2), nullptr, 16))
                                        : value.get<std::uint32_t>();
    const auto bits = static_cast<unsigned>(__builtin_popcount(mask));
    const std::uint32_t run = mask == 0 ? 0 : mask >> __builtin_ctz(mask);
    if (mask == 0 || (run & (run + 1)) != 0 || bits < min_bits || bits > max_bits) {
      return refuse(path,
                    fmt::format("is {:#010x}; expected one run of {} to {} neighbouring bits, "
                                "such as 0xff000000",
                                mask, min_bits, max_bits));
    }
    out = mask;
  }
  void refuse(const std::string& path, const std::string& message) {
    if (!fault_) fault_ = Error{Errc::kInvalid, tree_.where(path), message};
  }
  [[nodiscard]] const std::optional<Error>& fault() const { return fault_; }
  [[nodiscard]] const ConfigTree& tree() const { return tree_; }

 private:
  const ConfigTree& tree_;
  std::optional<Error> fault_;
};

bool is_interface_name(const std::string& name) {
  if (name.empty() || name.size() > 15 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isgraph(c) != 0 && c != '/' && c != ':'; });
}

void read_tunnel(Reader& r, model::Settings& s) {
  r.get("feature.enableIPv4", s.enable_ipv4);
  r.get("feature.enableIPv6", s.enable_ipv6);
  if (!s.enable_ipv4 && !s.enable_ipv6) {
    r.refuse("feature.enableIPv4", "both families are switched off; switch one on");
  }
  r.prefix("feature.tunnelIpv4Subnet", model::Family::kV4, s.tunnel_v4);
  r.prefix("feature.tunnelIpv6Subnet", model::Family::kV6, s.tunnel_v6);
  if (r.tree().at("feature.tunnelUnderlay") == "ipv6") s.underlay = model::Family::kV6;
  r.get("feature.tunnelDetectMethod", s.tunnel_detect_method);
  if (s.tunnel_detect_method != "defaultRouteInterface" &&
      !(s.tunnel_detect_method.starts_with("interface=") &&
        is_interface_name(s.tunnel_detect_method.substr(10)))) {
    r.refuse("feature.tunnelDetectMethod",
             fmt::format("is \"{}\"; expected defaultRouteInterface or interface=NAME",
                         s.tunnel_detect_method));
  }
  const json& custom = r.tree().at("feature.tunnelDetectCustomInterface");
  for (std::size_t i = 0; i < custom.size(); ++i) {
    const std::string path = fmt::format("feature.tunnelDetectCustomInterface[{}]", i);
    auto selector = model::decode_selector(custom[i]["nodeSelector"], path + ".nodeSelector");
    if (!selector) return r.refuse(path, selector.error().to_string());
    auto name = custom[i]["interfaceName"].get<std::string>();
    if (!is_interface_name(name)) {
      return r.refuse(path, fmt::format("\"{}\" is not the name of an interface", name));
    }
    s.tunnel_detect_custom.push_back({*std::move(selector), std::move(name)});
  }
  r.get("feature.vxlan.name", s.vxlan_name);
  if (!is_interface_name(s.vxlan_name)) {
    r.refuse("feature.vxlan.name", fmt::format("is \"{}\"; expected 1 to 15 characters without "
                                               "slash, colon or space",
                                               s.vxlan_name));
  }
  r.get("feature.vxlan.port", s.vxlan_port);
  r.get("feature.vxlan.id", s.vxlan_id);
  r.get("feature.vxlan.disableChecksumOffload", s.vxlan_disable_checksum_offload);
}

void read_cluster(Reader& r, model::Settings& s) {
  r.get("feature.clusterCIDR.autoDetect.podCidrMode", s.pod_cidr_mode);
  r.get("feature.clusterCIDR.autoDetect.clusterIP", s.detect_cluster_ip);
  r.get("feature.clusterCIDR.autoDetect.nodeIP", s.detect_node_ip);
  r.get("feature.clusterCIDR.extraCidr", s.extra_cidr);
  for (const auto& cidr : s.extra_cidr) {
    if (auto ok = model::Prefix::parse(cidr); !ok) {
      r.refuse("feature.clusterCIDR.extraCidr",
               fmt::format("\"{}\": {}", cidr, ok.error().message));
    }
  }
  r.get("feature.endpointSlices", s.endpoint_slices);
  r.get("feature.maxNumberEndpointPerSlice", s.max_endpoints_per_slice);
  r.get("feature.announcedInterfacesToExclude", s.announce_exclude);
  for (const auto& pattern : s.announce_exclude) {
    try {
      const std::regex compiled(pattern);
    } catch (const std::regex_error& e) {
      r.refuse(
          "feature.announcedInterfacesToExclude",
          fmt::format("\"{}\" is not a regular expression ({}); a name that begins with br- is "
                      "matched by ^br-.*",
                      pattern, e.what()));
    }
  }
}

void read_failover(Reader& r, model::Settings& s) {
  r.get("feature.gatewayFailover.enable", s.failover);
  r.seconds("feature.tunnelMonitorPeriod", s.tunnel_monitor_period);
  r.seconds("feature.tunnelUpdatePeriod", s.tunnel_update_period);
  r.seconds("feature.eipEvictionTimeout", s.eip_eviction_timeout);
  if (s.eip_eviction_timeout <= s.tunnel_monitor_period + s.tunnel_update_period) {
    const auto seconds = [](std::chrono::milliseconds ms) {
      return static_cast<double>(ms.count()) / 1000.0;
    };
    r.refuse("feature.eipEvictionTimeout",
             fmt::format("is {} s; expected more than tunnelMonitorPeriod ({} s) and "
                         "tunnelUpdatePeriod ({} s) together",
                         seconds(s.eip_eviction_timeout), seconds(s.tunnel_monitor_period),
                         seconds(s.tunnel_update_period)));
  }
}

void read_plugin(Reader& r, const std::string& path, runtime::PluginChoice& choice) {
  r.get(path + ".name", choice.name);
  if (r.tree().has(path + ".config")) choice.config = r.tree().at(path + ".config");
}

// With `auto` each datapath that may be chosen has a section of its own.
void check_sections(Reader& r, const json& config) {
  const auto& names = runtime::kAutomaticOrder;
  for (const auto& [name, section] : config.items()) {
    const bool known = std::find(names.begin(), names.end(), name) != names.end();
    if (known && section.is_object()) continue;
    r.refuse(
        "plugins.datapath.config",
        fmt::format("has {} \"{}\"; with the datapath auto it has a section for each datapath "
                    "that may be chosen: {}",
                    known ? "no section but a value in" : "the key", name, fmt::join(names, ", ")));
  }
}

void read_plugins(Reader& r, Config& config) {
  auto& rt = config.runtime;
  read_plugin(r, "plugins.stateStore", rt.state_store);
  read_plugin(r, "plugins.leaderElection", rt.leader_election);
  read_plugin(r, "plugins.datapath", rt.datapath);
  // One file serves as store and as election unless somebody says otherwise.
  if (rt.state_store.name == "local" && !rt.state_store.config.contains("path")) {
    rt.state_store.config["path"] = "/var/lib/egw/egw.db";
  }
  if (rt.leader_election.name == "local" && !rt.leader_election.config.contains("path")) {
    rt.leader_election.config["path"] = rt.state_store.name == "local"
                                            ? rt.state_store.config["path"]
                                            : json("/var/lib/egw/egw.db");
  }
  const bool automatic = rt.datapath.name == runtime::kAutomatic;
  if (automatic) check_sections(r, rt.datapath.config);
  std::string backend;
  r.get("feature.iptables.backendMode", backend);
  if (backend.empty() || backend == "auto") return;
  if (rt.datapath.name == "iptables") {
    rt.datapath.config["backendMode"] = backend;
  } else if (automatic) {
    rt.datapath.config["iptables"]["backendMode"] = backend;
  } else {
    config.warnings.push_back(fmt::format("{}: has no effect with the datapath {}",
                                          r.tree().where("feature.iptables.backendMode"),
                                          rt.datapath.name));
  }
}

void read_listen(Reader& r, const std::string& role, std::uint16_t health, std::uint16_t metrics,
                 RoleConfig& out) {
  std::string address = "0.0.0.0";
  r.get(role + ".bindAddress", address);
  std::array<unsigned char, 16> binary{};
  if (inet_pton(AF_INET, address.c_str(), binary.data()) != 1 &&
      inet_pton(AF_INET6, address.c_str(), binary.data()) != 1) {
    r.refuse(
        role + ".bindAddress",
        fmt::format("is \"{}\"; expected an IPv4 or IPv6 address of this machine, 0.0.0.0 or ::",
                    address));
  }
  out.health = {address, health};
  out.metrics = {address, metrics};
  r.get(role + ".healthPort", out.health.port);
  r.get(role + ".metricsPort", out.metrics.port);
  if (r.tree().at(role + ".prometheus.enabled") == false) {
    if (r.tree().has(role + ".metricsPort") && out.metrics.port != 0) {
      r.refuse(role + ".prometheus.enabled",
               fmt::format("is false, but {}.metricsPort is {}; give one of them", role,
                           out.metrics.port));
    }
    out.metrics.port = 0;
  }
  r.get(role + ".debug.logLevel", out.log_level);
  if (out.log_level == "fatal" || out.log_level == "panic") out.log_level = "error";
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "";
  return name.data();
}

void read_process(Reader& r, const ConfigInput& input, Config& config) {
  auto& rt = config.runtime;
  std::string dir;
  r.get("plugins.dir", dir);
  if (!input.env_plugin_dir.empty()) dir = input.env_plugin_dir;
  if (!input.plugin_dir.empty()) dir = input.plugin_dir;
  rt.plugin_dir = dir.empty() ? default_plugin_dir() : std::filesystem::path(dir);

  std::string state_dir = rt.state_dir;
  r.get("stateDir", state_dir);
  if (!input.state_dir.empty()) state_dir = input.state_dir;
  rt.state_dir = std::filesystem::absolute(state_dir);

  rt.node_name = host_name();
  r.get("nodeName", rt.node_name);
  if (!input.node_name.empty()) rt.node_name = input.node_name;
  if (!model::is_subdomain(rt.node_name)) {
    r.refuse("nodeName", fmt::format("is \"{}\"; expected {} (--node-name overrides the host name)",
                                     rt.node_name, model::kSubdomain));
  }
  std::string level = "info";
  std::string format = "text";
  r.get("log.level", level);
  r.get("log.format", format);
  config.log_level_given = r.tree().has("log.level") || !input.log_level.empty();
  if (!input.log_level.empty()) level = input.log_level;
  const auto parsed_level = runtime::parse_log_level(level);
  if (!parsed_level) {
    r.refuse("--log-level", fmt::format("is \"{}\"; expected debug, info, warn or error", level));
  }
  rt.log_level = parsed_level.value_or(runtime::LogLevel::kInfo);
  rt.log_format = runtime::parse_log_format(format).value_or(runtime::LogFormat::kText);
}

Result<ConfigTree> gather(const ConfigInput& input) {
  ConfigTree tree;
  if (!input.file.empty()) {
    auto text = read_text(input.file, kMaxConfig);
    if (!text) return tl::unexpected(std::move(text.error()));
    auto documents = read_yaml(*text, input.file, kMaxConfig);
    if (!documents) return tl::unexpected(std::move(documents.error()));
    if (documents->size() > 1) {
      return fail(Errc::kInvalid, input.file,
                  fmt::format("holds {} YAML documents; expected one", documents->size()));
    }
    if (!documents->empty()) {
      if (auto ok = tree.add(std::move(documents->front()), input.file); !ok) {
        return tl::unexpected(std::move(ok.error()));
      }
    }
  }
  for (const auto& set : input.sets) {
    auto document = parse_set(set);
    if (!document) return tl::unexpected(std::move(document.error()));
    if (auto ok = tree.add(*std::move(document), "--set"); !ok) {
      return tl::unexpected(std::move(ok.error()));
    }
  }
  return tree;
}

}  // namespace

Result<Config> load_config(const ConfigInput& input) {
  auto tree = gather(input);
  if (!tree) return tl::unexpected(std::move(tree.error()));
  Config config;
  auto& settings = config.runtime.settings;
  settings.tunnel_v4 = model::Prefix::parse("172.31.0.0/16").value();
  settings.tunnel_v6 = model::Prefix::parse("fd11::/112").value();
  for (const auto& [reason, keys] : tree->ignored()) {
    config.warnings.push_back(fmt::format("configuration: without effect, because {}: {}", reason,
                                          fmt::join(keys, ", ")));
  }
  Reader reader(*tree);
  read_tunnel(reader, settings);
  read_cluster(reader, settings);
  read_failover(reader, settings);
  reader.get("feature.manageForwarding", settings.manage_forwarding);
  reader.get("agent.bootDrop", settings.boot_drop);
  reader.mask("marks.slotMask", 4, 8, settings.slot_mask);
  if ((settings.slot_mask & 0xffffU) != 0) {
    reader.refuse("marks.slotMask",
                  fmt::format("is {:#010x}; expected bits of the upper 16: the lower ones carry "
                              "egress ids and kube-proxy's marks",
                              settings.slot_mask));
  }
  reader.mask("marks.ctMask", 4, 32, settings.ct_mask);
  read_plugins(reader, config);
  read_listen(reader, "agent", 5810, 5811, config.agent);
  read_listen(reader, "controller", 5820, 5821, config.controller);
  read_process(reader, input, config);
  if (reader.fault()) return tl::unexpected(*reader.fault());
  return config;
}

runtime::RuntimeConfig for_role(const Config& config, const std::string& role) {
  runtime::RuntimeConfig out = config.runtime;
  const RoleConfig& own = role == "agent" ? config.agent : config.controller;
  out.health = own.health;
  out.metrics = own.metrics;
  if (!own.log_level.empty() && !config.log_level_given) {
    out.log_level = runtime::parse_log_level(own.log_level).value_or(out.log_level);
  }
  return out;
}

std::filesystem::path default_plugin_dir() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "/usr/lib/egw/plugins";
  return self.parent_path().parent_path() / "lib" / "egw" / "plugins";
}

}  // namespace egw::app
