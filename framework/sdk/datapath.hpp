// Base classes of a datapath plugin. An author derives from Datapath (understands steps) or
// FullDatapath (is always given the whole state), gives the class
//   - a constructor (std::string_view config_json, std::string_view state_dir,
//     sdk::DatapathHost host), which changes nothing in the kernel and may throw sdk::Failure,
//   - static sdk::Status probe(std::string_view config_json, const sdk::NodeConfig& node,
//     sdk::ProbeSink& out), which changes nothing at all,
// and writes EGW_DATAPATH_PLUGIN once. The destructor leaves the kernel as it is.
#pragma once

#include <string>

#include "egw/sdk/datapath_state.hpp"
#include "egw/sdk/plugin.hpp"

namespace egw::sdk {

class DatapathHost : public Host {
 public:
  DatapathHost() = default;
  explicit DatapathHost(const egw_datapath_host* host)
      : Host(host == nullptr ? nullptr : &host->base), host_(read_struct(host)) {}

  // Somebody else changed kernel state of ours; the host answers with a full apply. Any thread.
  void drifted(std::string_view what) const noexcept {
    if (host_.drifted != nullptr) host_.drifted(host_.drifted_ctx, str(what));
  }
  // The folder that plugins of this plugin's layout share; empty without a layout, and with a host
  // older than ABI 1.1.
  [[nodiscard]] std::string_view layout_dir() const noexcept { return view(host_.layout_dir); }

 private:
  egw_datapath_host host_{};
};

enum class ObjectType : std::uint32_t {
  kNode = EGW_OBJECT_NODE,
  kPeer = EGW_OBJECT_PEER,
  kEgress = EGW_OBJECT_EGRESS,
  kClass = EGW_OBJECT_CLASS,
  kEndpoint = EGW_OBJECT_ENDPOINT,
};

// Takes what apply did. With failures and an apply() that answers ok, the host is told kPartial.
class ApplyReport {
 public:
  explicit ApplyReport(const egw_apply_report& sink) : sink_(sink) {}

  // key: a peer's name, an id in decimal, an endpoint's address.
  void failed(ObjectType type, std::string_view key, int sys_errno, std::string_view message) {
    ++failures_;
    if (sink_.failed != nullptr) {
      sink_.failed(sink_.ctx, static_cast<std::uint32_t>(type), str(key), sys_errno, str(message));
    }
  }
  void failed(ObjectType type, std::uint32_t id, int sys_errno, std::string_view message) {
    failed(type, std::to_string(id), sys_errno, message);
  }
  // `count` kernel objects called `what` had been changed by somebody else and were put back.
  void repaired(std::string_view what, std::uint64_t count) {
    if (sink_.repaired != nullptr && count != 0) sink_.repaired(sink_.ctx, str(what), count);
  }
  [[nodiscard]] std::size_t failures() const { return failures_; }

 private:
  egw_apply_report sink_;
  std::size_t failures_ = 0;
};

class SysctlSink {
 public:
  explicit SysctlSink(const egw_sysctl_sink& sink) : sink_(sink) {}
  // key: "net/ipv4/conf/all/src_valid_mark". forwarding: the key switches forwarding.
  void need(std::string_view key, std::string_view value, std::string_view why,
            bool forwarding = false) {
    sink_.need(sink_.ctx, str(key), str(value), forwarding ? 1 : 0, str(why));
  }

 private:
  egw_sysctl_sink sink_;
};

class ProbeSink {
 public:
  explicit ProbeSink(const egw_probe_sink& sink) : sink_(sink) {}
  // code: stable, CamelCase ("MarkConflict").
  void finding(bool passed, std::string_view code, std::string_view message) {
    sink_.finding(sink_.ctx, passed ? 1 : 0, str(code), str(message));
  }

 private:
  egw_probe_sink sink_;
};

class CounterSink {
 public:
  explicit CounterSink(const egw_counter_sink& sink) : sink_(sink) {}
  // labels: "k=v,k=v". value: monotonic since the plugin was opened.
  void counter(std::string_view name, std::string_view labels, std::uint64_t value) {
    sink_.counter(sink_.ctx, str(name), str(labels), value);
  }

 private:
  egw_counter_sink sink_;
};

// Contract of every operation: the comments of egw_datapath_ops in abi/datapath.h.
class Datapath {
 public:
  Datapath() = default;
  Datapath(const Datapath&) = delete;
  Datapath& operator=(const Datapath&) = delete;
  virtual ~Datapath() = default;

  virtual Status apply(const Change& change, ApplyReport& report) = 0;
  virtual Status sysctls(SysctlSink& out) = 0;
  virtual Outcome<std::string> observe() = 0;  // JSON
  virtual Status counters(CounterSink& out) = 0;
  virtual Status health() = 0;
  virtual Status forget(const Address& eip) = 0;
  virtual Status purge() = 0;
  // Only of a class with kLayout. The default gives nothing away.
  virtual Status hand_over(const NodeConfig& /*node*/) { return purge(); }
};

// For plugins that only know "make the kernel look like this": steps are gathered here, and
// apply_full() is given the whole state after each of them. It compares with the kernel and
// repairs.
class FullDatapath : public Datapath {
 public:
  Status apply(const Change& change, ApplyReport& report) final {
    if (Status s = held_.fits(change); !s.ok()) return s;
    held_.merge(change);
    Status s = apply_full(held_.state(), report);
    if (!s.ok() && s.code != Code::kPartial) held_.invalidate();
    return s;
  }

 protected:
  virtual Status apply_full(const State& state, ApplyReport& report) = 0;
  [[nodiscard]] const DatapathState& held() const { return held_; }

 private:
  DatapathState held_;
};

namespace detail {

template <class Class>
struct DatapathThunks {
  static std::int32_t probe(egw_str config, const egw_node_config* node, const egw_probe_sink* out,
                            const egw_error_sink* error) {
    return guarded(error, [&] {
      ProbeSink sink(*out);
      return Class::probe(view(config), NodeConfig(read_struct(node)), sink);
    });
  }
  static std::int32_t open(egw_str config, egw_str state_dir, const egw_datapath_host* host,
                           void** instance, const egw_error_sink* error) {
    return guarded(error, [&] {
      const DatapathHost services(host);
      *instance = new Instance<Class>(services, view(config), view(state_dir), services);
      return ok();
    });
  }
  static std::int32_t apply(void* instance, const egw_change* change,
                            const egw_apply_report* report, const egw_error_sink* error) {
    return guarded(error, [&] {
      ApplyReport out(*report);
      Status s = object_of<Class>(instance).apply(Change(change), out);
      if (s.ok() && out.failures() > 0) {
        return fail(Code::kPartial,
                    std::to_string(out.failures()) + " objects could not be programmed");
      }
      return s;
    });
  }
  static std::int32_t sysctls(void* instance, const egw_sysctl_sink* out,
                              const egw_error_sink* error) {
    return guarded(error, [&] {
      SysctlSink sink(*out);
      return object_of<Class>(instance).sysctls(sink);
    });
  }
  static std::int32_t observe(void* instance, const egw_text_sink* out,
                              const egw_error_sink* error) {
    return guarded(error, [&] {
      Outcome<std::string> text = object_of<Class>(instance).observe();
      if (text.ok()) out->put(out->ctx, str(*text));
      return text.status();
    });
  }
  static std::int32_t counters(void* instance, const egw_counter_sink* out,
                               const egw_error_sink* error) {
    return guarded(error, [&] {
      CounterSink sink(*out);
      return object_of<Class>(instance).counters(sink);
    });
  }
  static std::int32_t health(void* instance, const egw_error_sink* error) {
    return guarded(error, [&] { return object_of<Class>(instance).health(); });
  }
  static std::int32_t forget(void* instance, const egw_addr* eip, const egw_error_sink* error) {
    return guarded(error, [&] { return object_of<Class>(instance).forget(Address(*eip)); });
  }
  static std::int32_t purge(void* instance, const egw_error_sink* error) {
    return guarded(error, [&] { return object_of<Class>(instance).purge(); });
  }
  static std::int32_t hand_over(void* instance, const egw_node_config* node,
                                const egw_error_sink* error) {
    return guarded(
        error, [&] { return object_of<Class>(instance).hand_over(NodeConfig(read_struct(node))); });
  }
  static constexpr egw_datapath_ops kOps{sizeof(egw_datapath_ops),
                                         0,
                                         probe,
                                         open,
                                         detail::close<Class>,
                                         apply,
                                         sysctls,
                                         observe,
                                         counters,
                                         health,
                                         forget,
                                         purge,
                                         hand_over};
};

}  // namespace detail
}  // namespace egw::sdk

// name: as in the file name egw-datapath-<name>.so. schema: JSON Schema of the configuration, ""
// when there is none. All three are string literals or constexpr std::string_view. EGW_CAP_DELTA is
// always offered: both base classes take steps. Others: see Class::kCapabilities in plugin.hpp.
#define EGW_DATAPATH_PLUGIN(Class, name, version, schema)                                    \
  EGW_SDK_ENTRY(Class, EGW_KIND_DATAPATH, ::egw::sdk::detail::DatapathThunks, name, version, \
                schema, ::egw::sdk::detail::capabilities_of<Class>() | EGW_CAP_DELTA)
