// A real datapath that goes wrong when it is told to: forwards every operation to another library
// (configuration: {"library": PATH, "fault": FILE}), unless the file holds "<operation> <fault>".
// On the C table, without the SDK's guards. Under the host in tests/abi, under an agent in
// tests/e2e.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include "config_value.hpp"
#include "egw/abi/datapath.h"
#include "egw/abi/plugin.h"

namespace {

std::string fault_file;  // of the one instance that a test has
const egw_datapath_ops* real = nullptr;

// The fault asked for in this operation, or "".
std::string fault(const std::string& operation) {
  std::ifstream in(fault_file);
  std::string which;
  std::string what;
  in >> which >> what;
  return which == operation ? what : "";
}

egw_str str(std::string_view s) { return {s.data(), s.size()}; }
constexpr egw_str kEndless{"x", SIZE_MAX};
constexpr egw_str kNothing{nullptr, 7};

void set(const egw_error_sink* error, egw_str text) { error->set(error->ctx, -1, text, text); }

// Faults of any operation. true: `status` is the answer.
bool misbehave(const std::string& operation, const egw_error_sink* error, std::int32_t& status) {
  const std::string what = fault(operation);
  if (what == "throw") throw std::runtime_error("the card is on fire");
  if (what == "throw-number") throw 5;
  if (what == "end-thread") pthread_exit(nullptr);
  if (what == "crash") std::raise(SIGSEGV);
  if (what == "block") {
    while (fault(operation) == "block") std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (what == "leak") {
    for (int i = 0; i < 100; ++i) {
      if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0) break;
    }
  }
  if (what == "status") {
    set(error, kEndless);
    set(error, kNothing);
    status = 4711;
    return true;
  }
  return false;
}

void load(const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* entry = handle == nullptr ? nullptr : dlsym(handle, EGW_PLUGIN_ENTRY_SYMBOL);
  if (entry == nullptr) throw std::runtime_error("cannot open " + library);
  real = static_cast<const egw_datapath_ops*>(reinterpret_cast<egw_plugin_entry_fn>(entry)()->ops);
}

std::int32_t probe(egw_str /*config*/, const egw_node_config* node, const egw_probe_sink* out,
                   const egw_error_sink* error) {
  std::int32_t status = 0;
  if (misbehave("probe", error, status)) return status;
  return real->probe({"{}", 2}, node, out, error);
}

std::int32_t open_(egw_str config, egw_str state_dir, const egw_datapath_host* host,
                   void** instance, const egw_error_sink* error) {
  const std::string_view text(config.data, config.len);
  fault_file = value_of(text, "fault");
  load(value_of(text, "library"));
  std::int32_t status = 0;
  if (misbehave("open", error, status)) return status;
  return real->open({"{}", 2}, state_dir, host, instance, error);
}

void close_(void* instance) { real->close(instance); }

std::int32_t apply(void* instance, const egw_change* change, const egw_apply_report* report,
                   const egw_error_sink* error) {
  std::int32_t status = 0;
  if (misbehave("apply", error, status)) return status;
  const std::string what = fault("apply");
  if (what == "need-full") return EGW_NEED_FULL;
  if (what == "absurd") {
    for (int i = 0; i < 5000; ++i) {
      report->repaired(report->ctx, str("type " + std::to_string(i)), UINT64_MAX);
      report->failed(report->ctx, 77, kEndless, INT32_MIN, kNothing);
    }
    return EGW_OK;
  }
  return real->apply(instance, change, report, error);
}

std::int32_t sysctls(void* instance, const egw_sysctl_sink* out, const egw_error_sink* error) {
  std::int32_t status = 0;
  if (misbehave("sysctls", error, status)) return status;
  return real->sysctls(instance, out, error);
}

std::int32_t observe(void* instance, const egw_text_sink* out, const egw_error_sink* error) {
  std::int32_t status = 0;
  if (misbehave("observe", error, status)) return status;
  if (fault("observe") == "absurd") {
    out->put(out->ctx, kEndless);
    return EGW_OK;
  }
  return real->observe(instance, out, error);
}

std::int32_t counters(void* instance, const egw_counter_sink* out, const egw_error_sink* error) {
  std::int32_t status = 0;
  if (misbehave("counters", error, status)) return status;
  while (fault("counters") == "flood") out->counter(out->ctx, kEndless, kEndless, 1);
  if (fault("counters") == "many") {
    for (int i = 0; i < 5000; ++i) {
      const std::string labels = "egress=" + std::to_string(i);
      out->counter(out->ctx, str("steered_packets_total"), str(labels), 1);
    }
  }
  return real->counters(instance, out, error);
}

std::int32_t health(void* instance, const egw_error_sink* error) {
  std::int32_t status = 0;
  if (misbehave("health", error, status)) return status;
  return real->health(instance, error);
}

std::int32_t forget(void* instance, const egw_addr* eip, const egw_error_sink* error) {
  return real->forget(instance, eip, error);
}
std::int32_t purge(void* instance, const egw_error_sink* error) {
  return real->purge(instance, error);
}

// A library that does not let its process end.
struct AtExit {
  ~AtExit() {
    while (fault("exit") == "block") std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
} at_exit;

constexpr egw_datapath_ops kOps{sizeof(egw_datapath_ops),
                                0,
                                probe,
                                open_,
                                close_,
                                apply,
                                sysctls,
                                observe,
                                counters,
                                health,
                                forget,
                                purge,
                                nullptr};

}  // namespace

extern "C" __attribute__((visibility("default"))) const egw_plugin_descriptor* egw_plugin_entry_v1(
    void) {
  static egw_plugin_descriptor d{};
  d.struct_size = sizeof(d);
  d.abi_major = EGW_ABI_MAJOR;
  d.abi_minor = EGW_ABI_MINOR;
  d.kind = EGW_KIND_DATAPATH;
  d.name = str(NAME);
  d.version = str("0");
  d.config_schema = str(R"({"type": "object"})");
  d.capabilities = EGW_CAP_DELTA;
  d.ops = &kOps;
  return &d;
}
