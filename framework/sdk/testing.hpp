// Fakes for the unit tests of a datapath plugin, without egw, without root, without a test
// framework:
//   namespace t = egw::sdk::testing;
//   t::StateBuilder state("n1");
//   state.peer("n2", "10.6.0.12").egress(7, "10.6.1.56", "n2").steer("10.244.1.10", {{"0.0.0.0/0",
//   7}}); t::Plugin<Mine> plugin("{}", "/tmp/mine"); t::Applied done = plugin.apply(state.full());
//   assert(done.status.ok() && done.failed.empty());
// Plugin calls the class through the same table of C functions as egw does, so what an operation
// throws arrives as a status here too. Included by tests only.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "egw/sdk/datapath.hpp"

namespace egw::sdk::testing {

// The host's side: what the plugin logs, and what it says of changes by others.
class FakeHost {
 public:
  explicit FakeHost(std::string layout_dir = {}) : layout_dir_(std::move(layout_dir)) {
    host_.struct_size = sizeof(host_);
    host_.base.struct_size = sizeof(host_.base);
    host_.base.ctx = this;
    host_.base.log = [](void* ctx, std::int32_t, egw_str message) {
      static_cast<FakeHost*>(ctx)->logged.emplace_back(view(message));
    };
    host_.drifted_ctx = this;
    host_.drifted = [](void* ctx, egw_str what) {
      static_cast<FakeHost*>(ctx)->drifts.emplace_back(view(what));
    };
    host_.layout_dir = str(layout_dir_);
  }
  FakeHost(const FakeHost&) = delete;
  FakeHost& operator=(const FakeHost&) = delete;
  [[nodiscard]] const egw_datapath_host* get() const { return &host_; }

  // Not guarded: a plugin with threads of its own ends them before the test looks.
  std::vector<std::string> logged, drifts;

 private:
  std::string layout_dir_;
  egw_datapath_host host_{};
};

// A step or a full state with everything that it points to. Moved, never copied.
class BuiltChange {
 public:
  [[nodiscard]] const egw_change* get() const { return &change_; }

 private:
  friend class StateBuilder;
  std::deque<std::string> texts_;
  std::unique_ptr<egw_node_config> node_;
  std::vector<egw_prefix> cluster_prefixes_;
  std::vector<egw_peer> peers_;
  std::vector<egw_egress> egresses_;
  std::deque<std::vector<egw_class_rule>> rules_;
  std::vector<egw_class> classes_;
  std::vector<egw_endpoint> endpoints_;
  std::vector<egw_addr> gone_endpoints_;
  std::vector<std::uint32_t> gone_egresses_;
  egw_change change_{};
};

// The desired state of a node, as a controller and an agent would make it. Addresses are texts;
// what is none throws std::invalid_argument.
class StateBuilder {
 public:
  explicit StateBuilder(std::string node_name) { node.name = std::move(node_name); }

  // Reasonable for an IPv4 node; a test changes what it is about.
  struct Node {
    std::string name, tunnel_device = "egress.vxlan", parent_device = "eth0";
    std::string underlay = "10.6.0.11", tunnel_v4 = "172.31.0.1/16", tunnel_v6;
    bool enable_ipv4 = true, enable_ipv6 = false;
    std::uint32_t vni = 100, slot_mask = 0xff000000, ct_mask = 0xfff80000;
    std::uint16_t port = 7789;
    Mac mac{2, 0xee, 10, 6, 0, 11};
    std::vector<std::string> cluster_prefixes{"10.244.0.0/16"};
  } node;

  StateBuilder& peer(const std::string& name, const std::string& underlay) {
    peers_[name] = underlay;
    return *this;
  }
  // owner: a peer's name, "self" or "" (none).
  StateBuilder& egress(std::uint32_t id, const std::string& ipv4, const std::string& owner = "") {
    egresses_[id] = {ipv4, owner};
    gone_egresses_.erase(id);
    return *this;
  }
  StateBuilder& remove_egress(std::uint32_t id) {
    egresses_.erase(id);
    gone_egresses_.insert(id);
    return *this;
  }
  // An endpoint with a class of its own: destination -> egress id, 0: drop.
  using Rules = std::vector<std::pair<std::string, std::uint32_t>>;
  StateBuilder& steer(const std::string& endpoint, Rules rules) {
    const auto at = endpoints_.find(endpoint);
    const std::uint32_t id = at == endpoints_.end() ? ++last_class_ : at->second;
    endpoints_[endpoint] = id;
    classes_[id] = std::move(rules);
    gone_endpoints_.erase(endpoint);
    return *this;
  }
  StateBuilder& remove_endpoint(const std::string& endpoint) {
    endpoints_.erase(endpoint);
    gone_endpoints_.insert(endpoint);
    return *this;
  }

  // Everything there is. Each change has the next generation.
  [[nodiscard]] BuiltChange full() { return build(true, 0); }
  // A step from the change made before to what there is now (upserts of everything, deletes of what
  // was removed since); `base` otherwise.
  [[nodiscard]] BuiltChange step() { return build(false, generation_); }
  [[nodiscard]] BuiltChange step_on(std::uint64_t base) { return build(false, base); }
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

 private:
  static egw_addr address(const std::string& text) {
    const auto parsed = Address::parse(text);
    if (!text.empty() && !parsed) throw std::invalid_argument(text + " is no address");
    return parsed ? parsed->abi() : egw_addr{};
  }
  static egw_prefix prefix(const std::string& text) {
    const auto parsed = Prefix::parse(text);
    if (!text.empty() && !parsed) throw std::invalid_argument(text + " is no prefix");
    return parsed ? parsed->abi() : egw_prefix{};
  }
  static egw_str keep(BuiltChange& out, const std::string& text) {
    return str(out.texts_.emplace_back(text));
  }
  template <class T>
  static T sized() {
    T out{};
    out.struct_size = sizeof(out);
    return out;
  }

  void add_node(BuiltChange& out) const {
    auto n = sized<egw_node_config>();
    n.enable_ipv4 = node.enable_ipv4 ? 1 : 0;
    n.enable_ipv6 = node.enable_ipv6 ? 1 : 0;
    n.name = keep(out, node.name);
    n.tunnel_device = keep(out, node.tunnel_device);
    n.tunnel_vni = node.vni;
    n.tunnel_port = node.port;
    std::copy(node.mac.begin(), node.mac.end(), n.tunnel_mac);
    n.tunnel_v4 = prefix(node.tunnel_v4);
    n.tunnel_v6 = prefix(node.tunnel_v6);
    n.parent_device = keep(out, node.parent_device);
    n.underlay = address(node.underlay);
    (n.underlay.family == 6 ? n.parent_v6 : n.parent_v4) = n.underlay;
    n.slot_mask = node.slot_mask;
    n.ct_mask = node.ct_mask;
    for (const auto& p : node.cluster_prefixes) out.cluster_prefixes_.push_back(prefix(p));
    n.cluster_prefixes = span_of(out.cluster_prefixes_);
    out.node_ = std::make_unique<egw_node_config>(n);
  }
  void add_classes(BuiltChange& out) const {
    for (const auto& [id, rules] : classes_) {
      auto& table = out.rules_.emplace_back();
      for (const auto& [destination, egress_id] : rules) {
        auto rule = sized<egw_class_rule>();
        rule.action = egress_id == 0 ? EGW_ACTION_DROP : EGW_ACTION_EGRESS;
        rule.destination = prefix(destination);
        rule.egress_id = egress_id;
        table.push_back(rule);
      }
      auto entry = sized<egw_class>();
      entry.id = id;
      entry.rules = span_of(table);
      out.classes_.push_back(entry);
    }
  }
  void add_objects(BuiltChange& out) const {
    std::uint8_t last_byte = 100;
    for (const auto& [name, underlay] : peers_) {
      auto p = sized<egw_peer>();
      p.name = keep(out, name);
      p.underlay = address(underlay);
      p.tunnel_v4 = Address::v4(172, 31, 1, ++last_byte).abi();
      const Mac mac{2,
                    0xee,
                    p.underlay.bytes[0],
                    p.underlay.bytes[1],
                    p.underlay.bytes[2],
                    p.underlay.bytes[3]};
      std::copy(mac.begin(), mac.end(), p.mac);
      out.peers_.push_back(p);
    }
    for (const auto& [id, e] : egresses_) {
      auto egress = sized<egw_egress>();
      egress.id = id;
      egress.v4 = address(e.first);
      egress.owner = static_cast<std::uint8_t>(e.second.empty()     ? EGW_OWNER_NONE
                                               : e.second == "self" ? EGW_OWNER_SELF
                                                                    : EGW_OWNER_PEER);
      egress.may_serve = e.second == "self" ? 1 : 0;
      if (egress.owner == EGW_OWNER_PEER) egress.owner_peer = keep(out, e.second);
      out.egresses_.push_back(egress);
    }
    for (const auto& [text, class_id] : endpoints_) {
      auto endpoint = sized<egw_endpoint>();
      endpoint.class_id = class_id;
      endpoint.address = address(text);
      out.endpoints_.push_back(endpoint);
    }
  }

  BuiltChange build(bool full, std::uint64_t base) {
    BuiltChange out;
    add_node(out);
    add_classes(out);
    add_objects(out);
    if (!full) {
      for (const auto& text : gone_endpoints_) out.gone_endpoints_.push_back(address(text));
      out.gone_egresses_.assign(gone_egresses_.begin(), gone_egresses_.end());
    }
    gone_endpoints_.clear();
    gone_egresses_.clear();
    auto& c = out.change_;
    c = sized<egw_change>();
    c.full = full ? 1 : 0;
    c.base = base;
    c.generation = ++generation_;
    c.node = full ? out.node_.get() : nullptr;
    c.peers = span_of(out.peers_);
    c.egresses = span_of(out.egresses_);
    c.classes = span_of(out.classes_);
    c.endpoints = span_of(out.endpoints_);
    c.deleted_endpoints = span_of(out.gone_endpoints_);
    c.deleted_egresses = span_of(out.gone_egresses_);
    return out;
  }

  std::map<std::string, std::string> peers_;
  std::map<std::uint32_t, std::pair<std::string, std::string>> egresses_;
  std::map<std::uint32_t, Rules> classes_;
  std::map<std::string, std::uint32_t> endpoints_;
  std::set<std::string> gone_endpoints_;
  std::set<std::uint32_t> gone_egresses_;
  std::uint32_t last_class_ = 0;
  std::uint64_t generation_ = 0;
};

struct Applied {
  Status status;                              // code kPartial, kNeedFull ... as the host sees it
  std::map<std::string, std::string> failed;  // "egress 7" -> why
  std::map<std::string, std::uint64_t> repaired;
};

// One open instance of the plugin's class. Throws sdk::Failure where egw would refuse to go on.
template <class Class>
class Plugin {
 public:
  explicit Plugin(const std::string& config = "{}", const std::string& state_dir = "/tmp",
                  const std::string& layout_dir = {})
      : host_(std::make_unique<FakeHost>(layout_dir)) {
    Status why;
    const egw_error_sink sink{&why, set_error};
    why.code =
        static_cast<Code>(kOps.open(str(config), str(state_dir), host_->get(), &instance_, &sink));
    if (!why.ok()) throw Failure(why);
  }
  ~Plugin() { kOps.close(instance_); }
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;

  // What probe finds wrong: code -> message; its status beside it.
  static std::pair<Status, std::map<std::string, std::string>> probe(
      const BuiltChange& change, const std::string& config = "{}") {
    std::map<std::string, std::string> wrong;
    const egw_probe_sink out{
        &wrong, [](void* ctx, std::uint32_t ok, egw_str code, egw_str message) {
          if (ok != 0) return;
          (*static_cast<std::map<std::string, std::string>*>(ctx))[std::string(view(code))] =
              view(message);
        }};
    Status status;
    const egw_error_sink sink{&status, set_error};
    status.code = static_cast<Code>(kOps.probe(str(config), change.get()->node, &out, &sink));
    return {status, wrong};
  }

  Applied apply(const BuiltChange& change) {
    Applied out;
    const egw_apply_report report{
        &out,
        [](void* ctx, std::uint32_t type, egw_str key, std::int32_t, egw_str message) {
          static constexpr const char* kNames[] = {"object", "node",  "peer",
                                                   "egress", "class", "endpoint"};
          static_cast<Applied*>(ctx)
              ->failed[std::string(kNames[type <= 5 ? type : 0]) + " " + std::string(view(key))] =
              view(message);
        },
        [](void* ctx, egw_str what, std::uint64_t count) {
          static_cast<Applied*>(ctx)->repaired[std::string(view(what))] += count;
        }};
    const egw_error_sink sink{&out.status, set_error};
    out.status.code = static_cast<Code>(kOps.apply(instance_, change.get(), &report, &sink));
    return out;
  }
  // Key -> value, and whether the key switches forwarding.
  std::map<std::string, std::pair<std::string, bool>> sysctls() {
    std::map<std::string, std::pair<std::string, bool>> out;
    const egw_sysctl_sink sysctl_sink{
        &out, [](void* ctx, egw_str key, egw_str value, std::uint32_t forwarding, egw_str) {
          (*static_cast<decltype(&out)>(ctx))[std::string(view(key))] = {std::string(view(value)),
                                                                         forwarding != 0};
        }};
    must([&](const egw_error_sink* e) { return kOps.sysctls(instance_, &sysctl_sink, e); });
    return out;
  }
  // "name" or "name{labels}" -> value.
  std::map<std::string, std::uint64_t> counters() {
    std::map<std::string, std::uint64_t> out;
    const egw_counter_sink counter_sink{
        &out, [](void* ctx, egw_str name, egw_str labels, std::uint64_t value) {
          std::string key(view(name));
          if (labels.len != 0) key += "{" + std::string(view(labels)) + "}";
          (*static_cast<decltype(&out)>(ctx))[key] = value;
        }};
    must([&](const egw_error_sink* e) { return kOps.counters(instance_, &counter_sink, e); });
    return out;
  }
  std::string observe() {
    std::string out;
    const egw_text_sink text{
        &out, [](void* ctx, egw_str t) { *static_cast<std::string*>(ctx) = view(t); }};
    must([&](const egw_error_sink* e) { return kOps.observe(instance_, &text, e); });
    return out;
  }
  Status health() {
    return status([&](const egw_error_sink* e) { return kOps.health(instance_, e); });
  }
  Status forget(const std::string& eip) {
    const egw_addr address = Address::parse(eip).value().abi();
    return status([&](const egw_error_sink* e) { return kOps.forget(instance_, &address, e); });
  }
  Status purge() {
    return status([&](const egw_error_sink* e) { return kOps.purge(instance_, e); });
  }
  Status hand_over(const BuiltChange& full) {
    return status(
        [&](const egw_error_sink* e) { return kOps.hand_over(instance_, full.get()->node, e); });
  }
  [[nodiscard]] FakeHost& host() { return *host_; }
  [[nodiscard]] Class& object() { return detail::object_of<Class>(instance_); }

 private:
  static constexpr const egw_datapath_ops& kOps = detail::DatapathThunks<Class>::kOps;
  static void set_error(void* ctx, std::int32_t sys_errno, egw_str what, egw_str message) {
    auto* status = static_cast<Status*>(ctx);
    status->sys_errno = sys_errno;
    status->what = view(what);
    status->message = view(message);
  }
  template <class Call>
  static Status status(Call call) {
    Status out;
    const egw_error_sink sink{&out, set_error};
    out.code = static_cast<Code>(call(&sink));
    return out;
  }
  template <class Call>
  static void must(Call call) {
    if (Status s = status(call); !s.ok()) throw Failure(std::move(s));
  }

  std::unique_ptr<FakeHost> host_;
  void* instance_ = nullptr;
};

}  // namespace egw::sdk::testing
