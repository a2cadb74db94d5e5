#include "cluster.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "egw/runtime/spawn.hpp"

namespace egw::test {

void Office::stand(const std::string& name, host::ElectionEvents events) {
  candidates_.push_back({name, std::move(events)});
  fill();
}

void Office::resign(const std::string& name) {
  std::erase_if(candidates_, [&](const Candidate& c) { return c.name == name; });
  if (holder == name) holder.clear();
  fill();
}

void Office::depose() {
  if (candidates_.empty()) return;
  auto old = candidates_.front();
  candidates_.erase(candidates_.begin());
  boost::asio::post(executor_, [events = old.events] { events.lost("deposed"); });
  holder.clear();
  candidates_.push_back(std::move(old));
  fill();
}

void Office::fill() {
  if (!holder.empty() || candidates_.empty()) return;
  holder = candidates_.front().name;
  ++epoch;
  boost::asio::post(
      executor_, [events = candidates_.front().events, number = epoch] { events.elected(number); });
}

boost::asio::awaitable<Result<void>> MemoryElection::campaign(host::ElectionEvents events) {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  office_.stand(name_, std::move(events));
  co_return Result<void>{};
}

boost::asio::awaitable<void> MemoryElection::resign() {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  office_.resign(name_);
}

model::Settings fast_settings() {
  model::Settings settings;
  settings.tunnel_v4 = model::Prefix::parse("172.31.0.0/16").value();
  settings.tunnel_monitor_period = std::chrono::milliseconds(1000);
  settings.tunnel_update_period = std::chrono::milliseconds(1000);
  settings.eip_eviction_timeout = std::chrono::milliseconds(3000);
  return settings;
}

json make(const std::string& api, const std::string& kind, const std::string& name, json spec) {
  json document = {{"apiVersion", api},
                   {"kind", kind},
                   {"metadata", {{"name", name}}},
                   {"spec", std::move(spec)}};
  return document;
}

boost::asio::awaitable<std::set<model::Address>> QuietPinger::ping(
    std::string device, std::vector<model::Address> targets, std::int64_t wait_ms) {
  (void)wait_ms;
  last_device = std::move(device);
  asked = targets;
  std::set<model::Address> answered;
  for (const auto& target : targets) {
    if (!silent.contains(target)) answered.insert(target);
  }
  co_return answered;
}

AgentRig::AgentRig(VirtualLoop& loop, std::shared_ptr<MemoryContent> content,
                   const std::string& node, unsigned number, const std::filesystem::path& folder,
                   runtime::Logger& log, const model::Settings& settings,
                   const std::string& identity)
    : name(node),
      store(loop.executor(), std::move(content)),
      datapath(loop.executor(), loop.clock),
      metrics("agent", "test") {
  uplink.name = "eth0";
  uplink.index = 2;
  uplink.present = true;
  uplink.carrier = true;
  uplink.mac = {0x02, 0, 0, 0, 0, static_cast<std::uint8_t>(number)};
  uplink.ipv4 = model::Address::v4({10, 6, 0, static_cast<std::uint8_t>(number)});
  uplink.mtu = 1500;
  runtime::AgentOptions options;
  options.settings = settings;
  options.node_name = node;
  options.identity = identity;
  options.state_dir = folder / node;
  options.sysctl_root = folder / "proc";
  std::filesystem::create_directories(options.state_dir);
  runtime::AgentPorts ports{store, datapath, announcer,
                            [this](const std::string& method) { uplink_method = method; },
                            [this] { ++programmed_calls; }};
  ports.pinger = &pinger;
  if (settings.boot_drop) {
    ports.hold_pods = [this](const auto& pods, const auto& inside) {
      ++holds;
      held_pods = pods;
      inside_held = inside;
    };
  }
  agent = std::make_unique<runtime::Agent>(loop.executor(), loop.clock, log, metrics,
                                           std::move(options), std::move(ports));
}

boost::asio::awaitable<void> AgentRig::live(AgentRig& rig) {
  co_await rig.agent->run();
  rig.ended = true;
}

bool AgentRig::announces(const std::string& eip) const {
  if (announcer.muted || !agent) return false;
  const auto all = announcer.addresses();
  return std::find(all.begin(), all.end(), eip) != all.end();
}

ControllerRig::ControllerRig(VirtualLoop& loop, std::shared_ptr<MemoryContent> content,
                             Office& office, const std::string& identity, runtime::Logger& log,
                             const model::Settings& settings)
    : store(loop.executor(), std::move(content)),
      election(loop.executor(), office, identity),
      metrics("controller", "test") {
  runtime::ControllerOptions options;
  options.settings = settings;
  options.identity = identity;
  controller = std::make_unique<runtime::Controller>(loop.executor(), loop.clock, log, metrics,
                                                     std::move(options), store, election);
}

boost::asio::awaitable<void> ControllerRig::live(ControllerRig& rig) {
  co_await rig.controller->run();
  rig.ended = true;
}

ClusterTest::ClusterTest() {
  std::string pattern = std::filesystem::temp_directory_path() / "egw-cluster-XXXXXX";
  folder = ::mkdtemp(pattern.data());
}

ClusterTest::~ClusterTest() {
  for (auto& [name, rig] : agents) rig->agent->stop(false);
  for (auto& rig : dead) rig->agent->stop(false);  // one that a test has put there running
  for (auto& [name, rig] : controllers) rig->controller->stop();
  for (auto& [name, rig] : agents) rig->datapath.open_gate();
  loop.settle();
  for (auto& [name, rig] : agents) EXPECT_TRUE(rig->ended) << name << " did not stop";
  for (auto& [name, rig] : controllers) EXPECT_TRUE(rig->ended) << name << " did not stop";
  for (auto& [name, rig] : agents) EXPECT_FALSE(rig->datapath.overlapped) << name;
  agents.clear();
  controllers.clear();
  loop.settle();
  std::filesystem::remove_all(folder);
}

void ClusterTest::add_node(const std::string& name, bool gateway) {
  json node = {{"apiVersion", "v1"},
               {"kind", "Node"},
               {"metadata", {{"name", name}, {"labels", json::object()}}},
               {"spec", {{"podCIDR", "10.244." + std::to_string(nodes_) + ".0/24"}}}};
  if (gateway) node["metadata"]["labels"]["egress"] = "true";
  content->put(Kind::kNode, node);
}

AgentRig& ClusterTest::start_agent(const std::string& name, bool empty_kernel) {
  if (agents.contains(name)) kill_agent(name);
  if (!numbers_.contains(name)) numbers_[name] = ++nodes_;
  auto rig = std::make_unique<AgentRig>(loop, content, name, numbers_[name], folder, log, settings,
                                        identities[name]);
  AgentRig& agent = *rig;
  if (empty_kernel) {
    agent.datapath.unwell = "nothing is there";
    agent.datapath.close_gate();
  }
  agents[name] = std::move(rig);
  runtime::spawn(loop.executor(), AgentRig::live(agent));
  loop.settle();
  agent.agent->on_uplink(agent.uplink);
  loop.settle();
  return agent;
}

ControllerRig& ClusterTest::start_controller(const std::string& identity) {
  return start_controller(identity, office);
}

ControllerRig& ClusterTest::start_controller(const std::string& identity, Office& election) {
  auto rig = std::make_unique<ControllerRig>(loop, content, election, identity, log, settings);
  ControllerRig& controller = *rig;
  controllers[identity] = std::move(rig);
  runtime::spawn(loop.executor(), ControllerRig::live(controller));
  loop.settle();
  return controller;
}

void ClusterTest::add_gateway() {
  content->put(Kind::kEgressGateway,
               make(kApi, "EgressGateway", "egw",
                    {{"clusterDefault", true},
                     {"ippools", {{"ipv4", {"10.6.1.55", "10.6.1.56"}}, {"ipv4DefaultEIP", kEip}}},
                     {"nodeSelector", {{"selector", {{"matchLabels", {{"egress", "true"}}}}}}}}));
}

void ClusterTest::add_policy(const std::string& name, const std::string& destination) {
  json policy = make(kApi, "EgressPolicy", name,
                     {{"egressGatewayName", "egw"},
                      {"appliedTo", {{"podSelector", {{"matchLabels", {{"app", "web"}}}}}}},
                      {"destSubnet", {destination}}});
  policy["metadata"]["namespace"] = "default";
  content->put(Kind::kEgressPolicy, policy);
}

void ClusterTest::add_pod(const std::string& name, const std::string& node, const std::string& ip) {
  json pod = {
      {"apiVersion", "v1"},
      {"kind", "Pod"},
      {"metadata", {{"name", name}, {"namespace", "default"}, {"labels", {{"app", "web"}}}}},
      {"spec", {{"nodeName", node}}}};
  content->put(Kind::kPod, pod);
  content->put_status(Kind::kPod, {"default", name}, {{"podIP", ip}, {"phase", "Running"}});
}

void ClusterTest::start_cluster() {
  content->put(Kind::kNamespace,
               {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", "default"}}}});
  for (const char* name : {"n1", "g1", "g2"}) add_node(name, name[0] == 'g');
  start_controller("c1");
  for (const char* name : {"n1", "g1", "g2"}) start_agent(name);
  add_gateway();
  add_policy("web");
  add_pod("web-1", "n1", "10.244.1.5");
  loop.advance(2000);
  ASSERT_NE(owner(), "") << content->read(Kind::kEgressGateway, {"", "egw"}).dump(1);
}

json ClusterTest::tunnel(const std::string& node) const {
  return content->read(Kind::kEgressTunnel, {"", node});
}

std::string ClusterTest::phase(const std::string& node) const {
  return tunnel(node).value("/status/phase"_json_pointer, "");
}

std::string ClusterTest::owner(const std::string& eip) const {
  const json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
  const json nodes = gateway.value("/status/nodeList"_json_pointer, json::array());
  for (const auto& node : nodes) {
    for (const auto& held : node.value("eips", json::array())) {
      if (held.value("ipv4", "") == eip) return node["name"];
    }
  }
  return "";
}

std::string ClusterTest::other(const std::string& gateway_node) {
  return gateway_node == "g1" ? "g2" : "g1";
}

const json* ClusterTest::condition(const std::string& node, const std::string& type) {
  last_ = tunnel(node);
  for (const auto& c : last_["status"]["conditions"]) {
    if (c["type"] == type) return &c;
  }
  return nullptr;
}

bool ClusterTest::condition_true(const std::string& node, const std::string& type) {
  const json* c = condition(node, type);
  return c != nullptr && (*c)["status"] == "True";
}

std::vector<json> ClusterTest::events(const std::string& reason) const {
  std::vector<json> found;
  for (const auto& [place, object] : content->objects) {
    if (place.first == Kind::kEvent && object.document["reason"] == reason) {
      found.push_back(object.document);
    }
  }
  return found;
}

int ClusterTest::heartbeats_of(const std::string& node) {
  return static_cast<int>(agents.at(node)->store.writes.size());
}

std::unique_ptr<AgentRig> ClusterTest::freeze(const std::string& name) {
  auto rig = std::move(agents.at(name));
  agents.erase(name);
  rig->store.disconnect();  // nothing that it says is heard any more
  rig->agent->stop(false);
  loop.settle();
  return rig;
}

}  // namespace egw::test
