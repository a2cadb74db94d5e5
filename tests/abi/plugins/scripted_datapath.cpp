// A datapath on the SDK that misbehaves as its configuration says:
//   {"open": "throw"|"failure"|"wait", "apply": "throw"|"wait"|"steps"|"gate", "fifo": PATH}
// "wait" reads from the fifo, so that the test decides when the call comes back. "gate" is a good
// datapath, which may run, until somebody makes the fifo: then every apply waits there.
#include <fcntl.h>
#include <unistd.h>

#include <stdexcept>

#include "config_value.hpp"
#include "egw/sdk/datapath.hpp"

namespace {

namespace sdk = egw::sdk;

void wait_for(const std::string& fifo) {
  const int fd = open(fifo.c_str(), O_RDONLY);
  char byte = 0;
  if (fd < 0 || read(fd, &byte, 1) < 0) throw std::runtime_error("cannot wait at " + fifo);
  close(fd);
}

class Scripted final : public sdk::FullDatapath {
 public:
  Scripted(std::string_view config, std::string_view, sdk::DatapathHost host)
      : apply_(value_of(config, "apply")), fifo_(value_of(config, "fifo")), host_(host) {
    const std::string open = value_of(config, "open");
    if (open == "throw") throw std::runtime_error("cannot begin");
    if (open == "wait") wait_for(fifo_);
    if (open == "failure") {
      throw sdk::Failure(sdk::Code::kUnsupported, "the kernel is too old", "vxlan", ENOTSUP);
    }
  }
  ~Scripted() override { host_.info("closed"); }

  static sdk::Status probe(std::string_view config, const sdk::NodeConfig&, sdk::ProbeSink& out) {
    out.finding(true, "Kernel", "new enough");
    if (value_of(config, "apply") == "gate") return sdk::ok();
    out.finding(false, "MarkConflict", "rule 12 uses our bits");
    return sdk::fail(sdk::Code::kUnsupported, "1 finding");
  }
  sdk::Status apply_full(const sdk::State& state, sdk::ApplyReport&) override {
    ++applied_;
    if (apply_ == "throw") throw std::runtime_error("netlink said no");
    if (apply_ == "wait" && state.generation == 1) wait_for(fifo_);
    if (apply_ == "gate" && access(fifo_.c_str(), F_OK) == 0) wait_for(fifo_);
    return sdk::ok();
  }
  sdk::Status sysctls(sdk::SysctlSink&) override {
    if (apply_ == "gate") return sdk::ok();
    throw 5;
  }
  sdk::Outcome<std::string> observe() override {
    return apply_ == "throw" ? std::string("{\"no json") : std::to_string(applied_);
  }
  sdk::Status counters(sdk::CounterSink&) override {
    return sdk::fail(sdk::Code::kUnavailable, "");
  }
  sdk::Status health() override {
    for (int i = 0; i < 1000; ++i) host_.drifted("route");
    return sdk::ok();
  }
  sdk::Status forget(const sdk::Address&) override { return sdk::ok(); }
  sdk::Status purge() override { return sdk::ok(); }

 private:
  std::string apply_, fifo_;
  sdk::DatapathHost host_;
  int applied_ = 0;
};

constexpr const char* kSchema = R"({
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "open": {"enum": ["", "throw", "failure", "wait"]},
    "apply": {"enum": ["", "throw", "wait", "steps", "gate"]},
    "fifo": {"type": "string"},
    "limits": {"type": "object", "properties": {"rules": {"type": "integer", "minimum": 1}}}
  }
})";

}  // namespace

EGW_DATAPATH_PLUGIN(Scripted, "scripted", "0", kSchema);
