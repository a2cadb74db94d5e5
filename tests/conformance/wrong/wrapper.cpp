// The plugin around the right one (wrapper.hpp): opens it in its own entry, so that the
// host finds a library like any other.
#include "wrapper.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "which.hpp"

namespace wrong {
namespace {

template <class T>
std::vector<T> copied(const egw_span& span) {
  std::vector<T> out(span.count);
  for (std::size_t i = 0; i < span.count; ++i) {
    std::memcpy(&out[i], static_cast<const char*>(span.data) + i * span.stride,
                std::min(sizeof(T), span.stride));
  }
  return out;
}

template <class T>
egw_span span_of(const std::vector<T>& items) {
  return {items.data(), items.size(), sizeof(T)};
}

const Fault& fault() {
  static const Fault& kFault = *find_fault(kFaultName);
  return kFault;
}

void shell(const char* script) {
  if (script == nullptr) return;
  const std::string line = "{ " + std::string(script) + "\n} >/dev/null 2>&1";
  if (std::system(line.c_str()) == -1) std::perror("wrong plugin");
}

const egw_plugin_descriptor* base_descriptor() {
  static const egw_plugin_descriptor* const kBase = []() -> const egw_plugin_descriptor* {
    void* library = dlopen(kRightOne, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      return nullptr;
    }
    const auto entry =
        reinterpret_cast<egw_plugin_entry_fn>(dlsym(library, EGW_PLUGIN_ENTRY_SYMBOL));
    return entry == nullptr ? nullptr : entry();
  }();
  return kBase;
}

const egw_datapath_ops& base() {
  return *static_cast<const egw_datapath_ops*>(base_descriptor()->ops);
}

struct Instance {
  void* right = nullptr;
  egw_datapath_host host{};
  Memory memory;
};

Instance& of(void* instance) { return *static_cast<Instance*>(instance); }

int32_t probe(egw_str config, const egw_node_config* node, const egw_probe_sink* out,
              const egw_error_sink* error) {
  const int32_t status = base().probe(config, node, out, error);
  shell(fault().after_probe);
  return status;
}

// Of the host that the right plugin would tell: one library has one instance.
egw_datapath_host real_host;

void tell_some(void* ctx, egw_str what) {
  const std::string_view hidden = fault().hides_drift_of;
  if (std::string_view(what.data, what.len).substr(0, hidden.size()) == hidden) return;
  real_host.drifted(ctx, what);
}

int32_t open(egw_str config, egw_str state_dir, const egw_datapath_host* host, void** instance,
             const egw_error_sink* error) {
  auto own = std::make_unique<Instance>();
  own->host = *host;
  if (fault().tells_no_drift) own->host.drifted = [](void*, egw_str) {};
  if (!fault().hides_drift_of.empty()) {
    real_host = *host;
    own->host.drifted = tell_some;
  }
  const int32_t status = base().open(config, state_dir, &own->host, &own->right, error);
  if (status == EGW_OK) *instance = own.release();
  if (fault().at_open != nullptr) fault().at_open();
  shell(fault().after_open);
  return status;
}

void close(void* instance) {
  const std::unique_ptr<Instance> own(&of(instance));
  const egw_error_sink nobody{nullptr, [](void*, int32_t, egw_str, egw_str) {}};
  if (fault().purge_at_close) base().purge(own->right, &nobody);
  base().close(own->right);
}

int32_t apply(void* instance, const egw_change* change, const egw_apply_report* report,
              const egw_error_sink* error) {
  Instance& own = of(instance);
  if (fault().instead != nullptr && fault().instead(own.memory, *change)) return EGW_OK;
  if (fault().purge_before_apply || (fault().purge_at_first_apply && own.memory.applies == 0)) {
    base().purge(own.right, error);
  }
  Edited edited(*change);
  if (fault().edit != nullptr) fault().edit(own.memory, edited);
  egw_apply_report said = *report;
  if (fault().counts_no_repair) said.repaired = [](void*, egw_str, std::uint64_t) {};
  if (fault().unnamed_failures || fault().one_fails_all) {
    said.failed = [](void*, std::uint32_t, egw_str, std::int32_t, egw_str) {};
  }
  int32_t status = base().apply(own.right, edited.finish(), &said, error);
  if (fault().takes_any_base && status == EGW_NEED_FULL) status = EGW_OK;
  if (fault().unnamed_failures && status == EGW_PARTIAL) status = EGW_OK;
  if (fault().one_fails_all && status == EGW_PARTIAL) status = EGW_INVALID;
  if (status == EGW_OK || status == EGW_PARTIAL) ++own.memory.applies;
  shell(fault().after_apply);
  return status;
}

int32_t sysctls(void* instance, const egw_sysctl_sink* out, const egw_error_sink* error) {
  return base().sysctls(of(instance).right, out, error);
}

int32_t observe(void* instance, const egw_text_sink* out, const egw_error_sink* error) {
  if (!fault().observes_text) return base().observe(of(instance).right, out, error);
  constexpr std::string_view kText = "\"all is well\"";
  out->put(out->ctx, {kText.data(), kText.size()});
  return EGW_OK;
}

int32_t counters(void* instance, const egw_counter_sink* out, const egw_error_sink* error) {
  if (fault().counts_backwards) {
    constexpr std::string_view kName = "left";
    out->counter(out->ctx, {kName.data(), kName.size()}, {}, 1000 - of(instance).memory.applies);
  }
  return base().counters(of(instance).right, out, error);
}

int32_t health(void* instance, const egw_error_sink* error) {
  return fault().always_healthy ? int32_t{EGW_OK} : base().health(of(instance).right, error);
}

int32_t forget(void* instance, const egw_addr* eip, const egw_error_sink* error) {
  return fault().forgets_nothing ? int32_t{EGW_OK} : base().forget(of(instance).right, eip, error);
}

int32_t purge(void* instance, const egw_error_sink* error) {
  if (fault().purges_nothing) return EGW_OK;
  const int32_t status = base().purge(of(instance).right, error);
  shell(fault().after_purge);
  if (fault().at_purge != nullptr) fault().at_purge();
  return status;
}

}  // namespace

Edited::Edited(const egw_change& original)
    : change(original),
      egresses(copied<egw_egress>(original.egresses)),
      classes(copied<egw_class>(original.classes)),
      endpoints(copied<egw_endpoint>(original.endpoints)) {
  if (original.node != nullptr) node = *original.node;
  rules.reserve(classes.size());
  for (const auto& c : classes) rules.push_back(copied<egw_class_rule>(c.rules));
}

const egw_change* Edited::finish() {
  if (change.node != nullptr) change.node = &node;
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i].rules = span_of(rules[i]);
  change.egresses = span_of(egresses);
  change.classes = span_of(classes);
  change.endpoints = span_of(endpoints);
  return &change;
}

}  // namespace wrong

extern "C" __attribute__((visibility("default"))) const egw_plugin_descriptor*
egw_plugin_entry_v1() {
  static constexpr egw_datapath_ops kOps{sizeof(egw_datapath_ops),
                                         0,
                                         wrong::probe,
                                         wrong::open,
                                         wrong::close,
                                         wrong::apply,
                                         wrong::sysctls,
                                         wrong::observe,
                                         wrong::counters,
                                         wrong::health,
                                         wrong::forget,
                                         wrong::purge,
                                         nullptr};
  static egw_plugin_descriptor descriptor;
  const egw_plugin_descriptor* right = wrong::base_descriptor();
  if (right == nullptr) return nullptr;
  descriptor = *right;
  descriptor.name = {wrong::kPluginName, std::strlen(wrong::kPluginName)};
  descriptor.ops = &kOps;
  return &descriptor;
}
