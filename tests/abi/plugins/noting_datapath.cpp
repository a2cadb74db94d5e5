// A datapath on the SDK that writes the name of each operation that changes something to a file, a
// line each: {"notes": PATH, "purge": "fail"}. Its probe says no to {"probe": WHY}, with "while":
// PATH as long as that is there. LAYOUT: its layout, if it is to have one.
#include <fstream>

#include "config_value.hpp"
#include "egw/sdk/datapath.hpp"

namespace {

namespace sdk = egw::sdk;

class Noting final : public sdk::FullDatapath {
 public:
#ifdef LAYOUT
  static constexpr std::string_view kLayout = LAYOUT;
#endif
  Noting(std::string_view config, std::string_view, sdk::DatapathHost host)
      : host_(host),
        notes_(value_of(config, "notes")),
        fails_(value_of(config, "purge") == "fail") {
    (void)note("open in " + std::string(host.layout_dir()));
  }
  static sdk::Status probe(std::string_view config, const sdk::NodeConfig&, sdk::ProbeSink& out) {
    const std::string wrong = value_of(config, "probe");
    const std::string gate = value_of(config, "while");
    if (wrong.empty() || (!gate.empty() && !std::ifstream(gate))) return sdk::ok();
    out.finding(false, "NotHere", wrong);
    return sdk::fail(sdk::Code::kUnsupported, "1 finding");
  }
  sdk::Status apply_full(const sdk::State&, sdk::ApplyReport&) override { return note("apply"); }
  sdk::Status sysctls(sdk::SysctlSink&) override { return sdk::ok(); }
  sdk::Outcome<std::string> observe() override {
    return std::string(R"({"datapath":"noting","tables":["one"],"endpoints":{"10.0.0.1":"x"}})");
  }
  sdk::Status counters(sdk::CounterSink&) override { return sdk::ok(); }
  sdk::Status health() override { return sdk::ok(); }
  sdk::Status forget(const sdk::Address&) override {
    host_.drifted("element");
    return sdk::ok();
  }
  sdk::Status purge() override {
    if (fails_) return sdk::fail(sdk::Code::kUnavailable, "the kernel says no");
    return note("purge");
  }
  sdk::Status hand_over(const sdk::NodeConfig& node) override {
    return note("hand over " + node.name);
  }

 private:
  sdk::Status note(const std::string& what) const {
    if (!notes_.empty()) std::ofstream(notes_, std::ios::app) << NAME << ": " << what << '\n';
    return sdk::ok();
  }
  sdk::DatapathHost host_;
  std::string notes_;
  bool fails_;
};

}  // namespace

EGW_DATAPATH_PLUGIN(Noting, NAME, "0", R"({"type": "object"})");
