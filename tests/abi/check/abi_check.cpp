// egw-abi-check: what the ABI asks of a datapath plugin whatever it programs, driven through the
// real plugin host. Run by tests/netns/abi in a node's namespace, and by tests/abi for the
// examples.
//
// usage: egw-abi-check PLUGIN_DIR NAME STATE_DIR [CONFIG_JSON [NODE_JSON]]
// NODE_JSON: framework/model/node_state_codec.hpp; by default an IPv4 node whose uplink is eth0
// with 10.6.0.11. Prints {"cases": [{"case", "result": "pass" | "fail" | "skip", "detail"}]}; exit
// code 1 when one failed.
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "egw/host/plugin_host.hpp"
#include "egw/model/node_state_codec.hpp"

namespace {

namespace asio = boost::asio;
using egw::Result;
using egw::host::Datapath;
using egw::model::Address;
using egw::model::Change;
using nlohmann::json;

constexpr const char* kEndpoint = "10.244.1.10";
constexpr const char* kOther = "10.244.1.11";
constexpr const char* kBad = "10.244.1.99";

Address address(const char* text) { return Address::parse(text).value(); }

// Thrown by a case that fails; skipped: it does not apply.
struct Wrong {
  std::string why;
};
struct Skipped {
  std::string why;
};

class Check {
 public:
  Check(std::filesystem::path plugins, std::string name, std::filesystem::path state, json config,
        egw::model::NodeConfig node)
      : host_(std::move(plugins), io_.get_executor(),
              [](int level, std::string_view plugin, std::string_view message) {
                if (level >= 2) std::cerr << plugin << ": " << message << '\n';
              }),
        name_(std::move(name)),
        state_(std::move(state)),
        config_(std::move(config)),
        node_(std::move(node)) {}

  json run() {
    one("descriptor", [this] { descriptor(); });
    if (!one("open", [this] { open(); })) return cases_;
    one("probe", [this] { probe(); });
    one("step before full", [this] { step_before_full(); });
    if (!one("full", [this] { full(); })) return cases_;
    one("full again", [this] { full_again(); });
    one("step", [this] { step(); });
    one("step on another base", [this] { other_base(); });
    one("delete what is not there", [this] { delete_nothing(); });
    one("partial failure", [this] { partial(); });
    one("observe", [this] { observed(); });
    one("counters", [this] { counters(); });
    one("sysctls", [this] { sysctls(); });
    one("health", [this] { fine(await(datapath_->health())); });
    one("forget", [this] { fine(await(datapath_->forget(address("10.6.1.56")))); });
    one("close and open", [this] { reopen(); });
    one("hand over", [this] { hand_over(); });
    one("purge", [this] { purge(); });
    one("close", [this] { datapath_.reset(); });
    return cases_;
  }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  bool one(const char* name, const std::function<void()>& body) {
    json entry = {{"case", name}, {"result", "pass"}, {"detail", ""}};
    try {
      body();
    } catch (const Wrong& wrong) {
      failed_ = true;
      entry["result"] = "fail";
      entry["detail"] = wrong.why;
    } catch (const Skipped& skipped) {
      entry["result"] = "skip";
      entry["detail"] = skipped.why;
    }
    const bool passed = entry["result"] == "pass";
    cases_.push_back(std::move(entry));
    return passed;
  }

  // Every call of the host has a deadline of its own.
  template <class T>
  Result<T> await(asio::awaitable<Result<T>> work) {
    std::optional<Result<T>> answer;
    asio::co_spawn(io_, std::move(work), [&answer](std::exception_ptr error, Result<T> value) {
      if (!error) answer = std::move(value);
    });
    io_.restart();
    while (!answer && io_.run_one() != 0) {
    }
    if (!answer) throw Wrong{"the call ended with an exception"};
    return std::move(*answer);
  }
  static void must(bool what, const std::string& why) {
    if (!what) throw Wrong{why};
  }
  template <class T>
  static T fine(Result<T> result) {
    if (!result) throw Wrong{result.error().to_string()};
    if constexpr (!std::is_void_v<T>) return std::move(*result);
  }
  static void clean(const egw::host::ApplyOutcome& outcome) {
    must(!outcome.need_full, "answers NEED_FULL");
    if (outcome.failures.empty()) return;
    throw Wrong{outcome.failures[0].object + ": " + outcome.failures[0].message};
  }

  void descriptor() {
    const auto info = fine(host_.inspect(egw::host::PluginKind::kDatapath, name_));
    must(info.problem.empty(), info.file.string() + " " + info.problem);
  }
  void open() { datapath_ = fine(host_.open_datapath(name_, config_, state_)); }
  void probe() {
    for (const auto& finding : fine(await(datapath_->probe(node_)))) {
      must(!finding.code.empty(), "a finding without a code: " + finding.message);
      must(finding.ok || finding.advisory, finding.code + ": " + finding.message);
    }
  }

  // A node with one peer that owns the EIP of one pod; `generation` is the next.
  Change whole() {
    Change c;
    c.full = true;
    c.generation = ++generation_;
    c.node = node_;
    egw::model::Peer peer;
    peer.name = "abi-peer";
    peer.underlay = address("10.6.0.12");
    peer.tunnel_v4 = address("172.31.0.2");
    peer.mac = {0x02, 0xee, 0x0a, 0x06, 0x00, 0x0c};
    c.peers.push_back(std::move(peer));
    egw::model::Egress egress;
    egress.id = 7;
    egress.v4 = address("10.6.1.56");
    egress.owner = egw::model::Owner::kPeer;
    egress.owner_peer = "abi-peer";
    c.egresses.push_back(std::move(egress));
    const egw::model::ClassRule rule{egw::model::Prefix(address("0.0.0.0"), 0),
                                     egw::model::ActionKind::kEgress, 7};
    c.classes.emplace_back(1, egw::model::ClassTable{rule});
    c.endpoints.emplace_back(address(kEndpoint), 1);
    return c;
  }
  Change next() {
    Change c;
    c.base = generation_;
    c.generation = ++generation_;
    return c;
  }

  void step_before_full() {
    Change c = next();
    c.endpoints.emplace_back(address(kEndpoint), 1);
    must(fine(await(datapath_->apply(std::move(c)))).need_full,
         "a step before any full change is not answered with NEED_FULL");
  }
  void full() { clean(fine(await(datapath_->apply(whole())))); }
  void full_again() {
    const auto outcome = fine(await(datapath_->apply(whole())));
    clean(outcome);
    if (outcome.repaired.empty()) return;
    throw Wrong{"repaired " + outcome.repaired[0].first + " although nobody had touched anything"};
  }
  void step() {
    Change c = next();
    c.endpoints.emplace_back(address(kOther), 1);
    c.deleted_endpoints.push_back(address(kEndpoint));
    const auto outcome = fine(await(datapath_->apply(std::move(c))));
    if (outcome.need_full) {
      full();
      throw Skipped{"takes full changes only"};
    }
    clean(outcome);
  }
  void other_base() {
    const json before = fine(await(datapath_->observe()));
    Change c = next();
    --generation_;
    c.base += 40;
    c.deleted_endpoints.push_back(address(kOther));
    must(fine(await(datapath_->apply(std::move(c)))).need_full,
         "a step on another base is not answered with NEED_FULL");
    must(fine(await(datapath_->observe())) == before, "such a step changes what observe says");
  }
  void delete_nothing() {
    Change c = next();
    c.deleted_endpoints.push_back(address("10.244.1.77"));
    c.deleted_peers.emplace_back("nobody");
    c.deleted_egresses.push_back(16383);
    c.deleted_classes.push_back(4000);
    const auto outcome = fine(await(datapath_->apply(std::move(c))));
    if (outcome.need_full) throw Skipped{"takes full changes only"};
    clean(outcome);
  }
  void partial() {
    Change c = whole();
    c.endpoints.emplace_back(address(kBad), 99);  // a class that does not exist
    const auto outcome = fine(await(datapath_->apply(std::move(c))));
    must(outcome.failures.size() == 1,
         "an endpoint whose class does not exist: " + std::to_string(outcome.failures.size()) +
             " failures instead of one");
    must(outcome.failures[0].object == std::string("endpoint ") + kBad,
         "the failure names " + outcome.failures[0].object);
    must(!outcome.failures[0].message.empty(), "the failure says nothing");
    clean(fine(await(datapath_->apply(whole()))));
  }
  void observed() { must(fine(await(datapath_->observe())).is_object(), "is no JSON object"); }
  void counters() {
    const auto before = fine(await(datapath_->counters()));
    const auto after = fine(await(datapath_->counters()));
    for (const auto& value : after) {
      must(!value.name.empty(), "a counter without a name");
      for (const auto& old : before) {
        const bool same = old.name == value.name && old.labels == value.labels;
        must(!same || old.value <= value.value, value.name + " falls");
      }
    }
  }
  void sysctls() {
    for (const auto& need : fine(await(datapath_->sysctls()))) {
      must(!need.key.empty() && need.key[0] != '/' && need.key.find("..") == std::string::npos,
           "\"" + need.key + "\" is no key as under /proc/sys");
      must(!need.value.empty() && !need.why.empty(), need.key + " has no value or no reason");
    }
  }
  void reopen() {
    datapath_.reset();
    open();
    const auto outcome = fine(await(datapath_->apply(whole())));
    clean(outcome);
    must(outcome.repaired.empty(), "a restarted process says that it repaired something");
  }
  void hand_over() {
    const std::string layout = datapath_->layout();
    if (layout.empty()) throw Skipped{"names no layout"};
    must(datapath_->hands_over_to(layout), "names the layout " + layout + " and has no hand_over");
    fine(await(datapath_->hand_over(node_)));
    fine(await(datapath_->hand_over(node_)));
    clean(fine(await(datapath_->apply(whole()))));
  }
  void purge() {
    fine(await(datapath_->purge()));
    fine(await(datapath_->purge()));
    clean(fine(await(datapath_->apply(whole()))));
    fine(await(datapath_->purge()));
  }

  asio::io_context io_;
  egw::host::PluginHost host_;
  std::string name_;
  std::filesystem::path state_;
  json config_;
  egw::model::NodeConfig node_;
  std::unique_ptr<Datapath> datapath_;
  std::uint64_t generation_ = 0;
  json cases_ = json::array();
  bool failed_ = false;
};

constexpr const char* kNode = R"({"name": "abi-node", "enableIPv4": true,
  "tunnelDevice": "egress.vxlan", "vni": 100, "port": 7789, "mac": "02:ee:0a:06:00:0b",
  "tunnelIPv4": "172.31.0.1/16", "parentDevice": "eth0", "underlay": "10.6.0.11",
  "parentIPv4": "10.6.0.11", "slotMask": 4278190080, "ctMask": 4294443008,
  "clusterPrefixes": ["10.244.0.0/16"]})";

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: egw-abi-check PLUGIN_DIR NAME STATE_DIR [CONFIG_JSON [NODE_JSON]]\n");
    return 2;
  }
  const json config = argc > 4 ? json::parse(argv[4], nullptr, false) : json::object();
  auto node =
      egw::model::decode_node_config(json::parse(argc > 5 ? argv[5] : kNode, nullptr, false));
  if (config.is_discarded() || !node) {
    std::fprintf(stderr, "egw-abi-check: %s\n",
                 node ? "CONFIG_JSON is no JSON" : node.error().to_string().c_str());
    return 2;
  }
  Check check(argv[1], argv[2], argv[3], config, std::move(*node));
  std::cout << json{{"cases", check.run()}}.dump(1) << std::endl;
  return check.failed() ? 1 : 0;
}
