// The skeleton of a datapath: keeps what it is told in a table, as a real one would in a kernel, a
// switch or a card. It takes steps, reports single failures, repairs, prunes.
#pragma once

#include <map>
#include <string>

#include "egw/sdk/datapath.hpp"

namespace thirdparty {

namespace sdk = egw::sdk;

class Skeleton final : public sdk::Datapath {
 public:
  Skeleton(std::string_view config, std::string_view /*state_dir*/, sdk::DatapathHost host)
      : host_(host) {
    if (config.find("\"device\"") == std::string_view::npos) return;
    throw sdk::Failure(sdk::Code::kUnsupported, "no such device here", "device");
  }

  static sdk::Status probe(std::string_view /*config*/, const sdk::NodeConfig& node,
                           sdk::ProbeSink& out) {
    const bool fits = node.slot_mask != 0;
    out.finding(fits, "SlotMask", "marks.slotMask is empty");
    return fits ? sdk::ok() : sdk::fail(sdk::Code::kUnsupported, "no mark bits");
  }

  sdk::Status apply(const sdk::Change& change, sdk::ApplyReport& report) override {
    if (sdk::Status s = held_.fits(change); !s.ok()) return s;
    held_.merge(change);
    std::map<std::string, std::string> wanted;
    for (const auto& [address, class_id] : held_.state().endpoints) {
      const auto table = held_.state().classes.find(class_id);
      if (table == held_.state().classes.end()) {
        report.failed(sdk::ObjectType::kEndpoint, address.text(), 0, "its class does not exist");
        wanted[address.text()] = "drop";
        continue;
      }
      for (const auto& range : sdk::flatten(table->second)) {
        wanted[address.text()] += range.first.text() + "-" + range.last.text() + way(range.value);
      }
    }
    if (change.full() && applied_ > 0 && table_ != programmed_) report.repaired("entry", 1);
    table_ = programmed_ = std::move(wanted);
    ++applied_;
    return sdk::ok();
  }

  sdk::Status sysctls(sdk::SysctlSink& out) override {
    out.need("net/ipv4/ip_forward", "1", "pods' packets pass this node", true);
    return sdk::ok();
  }
  sdk::Outcome<std::string> observe() override {
    return R"({"datapath": "thirdparty", "entries": )" + std::to_string(table_.size()) + "}";
  }
  sdk::Status counters(sdk::CounterSink& out) override {
    out.counter("applied", "kind=all", applied_);
    return sdk::ok();
  }
  sdk::Status health() override {
    if (table_ == programmed_) return sdk::ok();
    return sdk::fail(sdk::Code::kUnavailable, "entries are missing");
  }
  sdk::Status forget(const sdk::Address& /*eip*/) override { return sdk::ok(); }
  sdk::Status purge() override {
    table_.clear();
    programmed_.clear();
    held_.invalidate();
    return sdk::ok();
  }

  // For tests: somebody else's hand in the table.
  void lose(const std::string& address) {
    table_.erase(address);
    host_.drifted("entry " + address);
  }

 private:
  [[nodiscard]] std::string way(const sdk::Action& action) const {
    const auto egress = held_.state().egresses.find(action.egress_id);
    const bool owned =
        egress != held_.state().egresses.end() && egress->second.owner != sdk::Owner::kNone;
    return action.kind == sdk::ActionKind::kEgress && owned ? " " + egress->second.v4.text()
                                                            : " drop";
  }

  sdk::DatapathHost host_;
  sdk::DatapathState held_;
  std::map<std::string, std::string> table_, programmed_;
  std::uint64_t applied_ = 0;
};

}  // namespace thirdparty
