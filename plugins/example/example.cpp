// The smallest datapath plugin: copy this folder to begin your own. Its "kernel" is a text file,
// one line per object; a real plugin has netlink, BPF maps or a switch in the place of File. What
// every operation owes the host: egw/abi/datapath.h and docs/write-a-datapath.md.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <set>

#include "egw/sdk/datapath.hpp"

namespace {

namespace sdk = egw::sdk;

// What a state looks like in our kernel. Deterministic: the same state gives the same lines.
std::set<std::string> wanted_lines(const sdk::State& state, sdk::ApplyReport& report) {
  std::set<std::string> lines;
  lines.insert("node " + state.node.name + " device " + state.node.tunnel_device);
  for (const auto& [name, peer] : state.peers) {
    lines.insert("peer " + name + " at " + peer.underlay.text());
  }
  for (const auto& [id, egress] : state.egresses) {
    if (egress.owner == sdk::Owner::kPeer && !state.peers.contains(egress.owner_peer)) {
      // One bad object fails alone; the others are programmed.
      report.failed(sdk::ObjectType::kEgress, id, ENOENT, "its owner is no known peer");
      continue;
    }
    lines.insert("egress " + std::to_string(id) + " " + egress.v4.text() + " " + egress.v6.text() +
                 (egress.owner == sdk::Owner::kSelf ? " here" : " " + egress.owner_peer));
  }
  for (const auto& [id, table] : state.classes) {
    // flatten(): disjoint ranges in which the longest prefix has won already.
    for (const auto& range : sdk::flatten(table)) {
      lines.insert("class " + std::to_string(id) + " " + range.first.text() + "-" +
                   range.last.text() + " action " +
                   std::to_string(static_cast<int>(range.value.kind)) + " egress " +
                   std::to_string(range.value.egress_id));
    }
  }
  for (const auto& [address, class_id] : state.endpoints) {
    if (!state.classes.contains(class_id)) {
      report.failed(sdk::ObjectType::kEndpoint, address.text(), ENOENT,
                    "its class does not exist: all its packets are dropped");
      lines.insert("endpoint " + address.text() + " drop");
      continue;
    }
    lines.insert("endpoint " + address.text() + " class " + std::to_string(class_id));
  }
  return lines;
}

class Example final : public sdk::FullDatapath {
 public:
  Example(std::string_view /*config_json*/, std::string_view state_dir, sdk::DatapathHost host)
      : file_(std::string(state_dir) + "/kernel"), host_(host) {}

  static sdk::Status probe(std::string_view /*config_json*/, const sdk::NodeConfig& node,
                           sdk::ProbeSink& out) {
    const bool fits = !node.tunnel_device.empty() && node.tunnel_device.size() <= 15;
    out.finding(fits, "TunnelDeviceName", "the tunnel device needs a name of 1 to 15 bytes");
    return fits ? sdk::ok() : sdk::fail(sdk::Code::kUnsupported, "no usable tunnel device name");
  }

  // Compares with what is there and writes only if it differs: adopts after a restart, repairs what
  // others changed, prunes our own leftovers.
  sdk::Status apply_full(const sdk::State& state, sdk::ApplyReport& report) override {
    const std::set<std::string> wanted = wanted_lines(state, report);
    const std::set<std::string> present = read();
    if (!programmed_.empty()) {
      report.repaired("line", static_cast<std::uint64_t>(std::count_if(
                                  programmed_.begin(), programmed_.end(),
                                  [&](const auto& l) { return !present.contains(l); })));
    }
    if (wanted != present) {
      if (sdk::Status s = write(wanted); !s.ok()) return s;
      ++writes_;
    }
    programmed_ = wanted;
    return sdk::ok();
  }

  sdk::Status sysctls(sdk::SysctlSink& out) override {
    out.need("net/netfilter/nf_conntrack_tcp_be_liberal", "1",
             "a moved connection must not be invalid");
    return sdk::ok();
  }
  sdk::Outcome<std::string> observe() override {
    return "{\"lines\": " + std::to_string(read().size()) + "}";
  }
  sdk::Status counters(sdk::CounterSink& out) override {
    out.counter("writes", "", writes_);
    return sdk::ok();
  }
  sdk::Status health() override { return sdk::ok(); }
  // This kernel has no connections to forget.
  sdk::Status forget(const sdk::Address& /*eip*/) override { return sdk::ok(); }
  sdk::Status purge() override {
    programmed_.clear();
    if (std::remove(file_.c_str()) == 0 || errno == ENOENT) return sdk::ok();
    return sdk::fail(sdk::Code::kUnavailable, "cannot be removed", file_, errno);
  }

 private:
  [[nodiscard]] std::set<std::string> read() const {
    std::set<std::string> lines;
    std::ifstream in(file_);
    for (std::string line; std::getline(in, line);) lines.insert(line);
    return lines;
  }
  sdk::Status write(const std::set<std::string>& lines) {
    const std::string fresh = file_ + ".new";
    std::ofstream out(fresh, std::ios::trunc);
    for (const std::string& line : lines) out << line << '\n';
    out.close();
    if (!out || std::rename(fresh.c_str(), file_.c_str()) != 0) {
      return sdk::fail(sdk::Code::kUnavailable, "cannot be written", file_, errno);
    }
    host_.debug("wrote " + std::to_string(lines.size()) + " lines");
    return sdk::ok();
  }

  std::string file_;
  sdk::DatapathHost host_;
  std::set<std::string> programmed_;
  std::uint64_t writes_ = 0;
};

}  // namespace

EGW_DATAPATH_PLUGIN(Example, "example", "0.1.0", "");
