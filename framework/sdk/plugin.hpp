// What the three kinds of plugin share: the host's services, the descriptor, and the guard that
// turns exceptions into statuses so that nothing is thrown across the C boundary. Included by
// state_store.hpp, leader_election.hpp and datapath.hpp; authors include those.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "egw/abi/plugin.h"
#include "egw/sdk/status.hpp"
#include "egw/sdk/views.hpp"

#ifdef __clang__
#define EGW_SDK_COMPILER "clang "
#else
#define EGW_SDK_COMPILER "g++ "
#endif
#define EGW_SDK_BUILD_TAG EGW_SDK_COMPILER __VERSION__

namespace egw::sdk {

enum class LogLevel : std::int32_t {
  kDebug = EGW_LOG_DEBUG,
  kInfo = EGW_LOG_INFO,
  kWarn = EGW_LOG_WARN,
  kError = EGW_LOG_ERROR,
};

// The host's services for one plugin instance: a cheap copyable handle, valid until the plugin's
// destructor has returned. Any thread, never blocks.
class Host {
 public:
  Host() = default;
  explicit Host(const egw_host* host) : host_(read_struct(host)) {}

  void log(LogLevel level, std::string_view message) const noexcept {
    if (host_.log != nullptr) host_.log(host_.ctx, static_cast<std::int32_t>(level), str(message));
  }
  void debug(std::string_view message) const noexcept { log(LogLevel::kDebug, message); }
  void info(std::string_view message) const noexcept { log(LogLevel::kInfo, message); }
  void warn(std::string_view message) const noexcept { log(LogLevel::kWarn, message); }
  void error(std::string_view message) const noexcept { log(LogLevel::kError, message); }

 private:
  egw_host host_{};
};

namespace detail {

inline std::int32_t report(const egw_error_sink* error, const Status& status) noexcept {
  if (!status.ok() && error != nullptr && error->set != nullptr) {
    error->set(error->ctx, status.sys_errno, str(status.what), str(status.message));
  }
  return static_cast<std::int32_t>(status.code);
}

// Asked in a catch (...) block: is it pthread_exit() that unwinds the stack? That has no exception
// object, so that a handler of its own (abi::__forced_unwind) binds a reference to nothing.
inline bool unwinds_to_end() noexcept { return std::current_exception() == nullptr; }

// Runs `body` (-> Status) and answers for everything that it throws. Not noexcept, nor are its
// callers: pthread_exit() unwinds the stack by what looks like an exception, which must reach the
// thread's end, or the C library ends the process.
template <class Body>
std::int32_t guarded(const egw_error_sink* error, Body&& body) {
  try {
    return report(error, body());
  } catch (const Failure& failure) {
    return report(error, failure.status());
  } catch (const std::bad_alloc&) {
    if (error != nullptr && error->set != nullptr) {
      error->set(error->ctx, 0, {}, str("out of memory"));
    }
  } catch (const std::exception& e) {
    if (error != nullptr && error->set != nullptr) {
      error->set(error->ctx, 0, {}, str(std::string_view(e.what())));
    }
  } catch (...) {
    if (unwinds_to_end()) throw;
    if (error != nullptr && error->set != nullptr) {
      error->set(error->ctx, 0, {}, str("an exception that is no std::exception"));
    }
  }
  return EGW_INTERNAL;
}

// For operations that cannot answer: what they throw goes to the log.
template <class Body>
void guarded_void(const Host& host, std::string_view operation, Body&& body) {
  try {
    body();
  } catch (const std::exception& e) {
    try {
      host.error(std::string(operation) + " failed: " + e.what());
    } catch (...) {
      host.error("an operation failed, and there is no memory to say which");
    }
  } catch (...) {
    if (unwinds_to_end()) throw;
    host.error(operation);
  }
}

// What the opaque handle points to.
template <class Class>
struct Instance {
  Host host;
  Class object;
  template <class... Args>
  explicit Instance(const Host& h, Args&&... args) : host(h), object(std::forward<Args>(args)...) {}
};

template <class Class>
Class& object_of(void* instance) {
  return static_cast<Instance<Class>*>(instance)->object;
}

template <class Class>
void close(void* instance) {
  auto* owned = static_cast<Instance<Class>*>(instance);
  if (owned == nullptr) return;
  const Host host = owned->host;
  guarded_void(host, "close", [&] { delete owned; });
}

// A plugin class may say `static constexpr std::uint64_t kCapabilities = ...;` (EGW_CAP_*).
template <class Class>
constexpr std::uint64_t capabilities_of() {
  if constexpr (requires { Class::kCapabilities; }) {
    return Class::kCapabilities;
  } else {
    return 0;
  }
}

// A datapath may say `static constexpr std::string_view kLayout = ...;`: what it has in common with
// others (egw_plugin_descriptor.layout). It then overrides hand_over().
template <class Class>
constexpr std::string_view layout_of() {
  if constexpr (requires { Class::kLayout; }) {
    return Class::kLayout;
  } else {
    return {};
  }
}

template <class Class>
constexpr egw_plugin_descriptor descriptor(egw_plugin_kind kind, std::string_view name,
                                           std::string_view version, std::string_view schema,
                                           const void* ops, std::uint64_t capabilities) {
  egw_plugin_descriptor d{};
  d.struct_size = sizeof(d);
  d.abi_major = EGW_ABI_MAJOR;
  d.abi_minor = EGW_ABI_MINOR;
  d.kind = kind;
  d.name = str(name);
  d.version = str(version);
  d.build_tag = str(EGW_SDK_BUILD_TAG);
  d.config_schema = str(schema);
  d.capabilities = capabilities;
  d.ops = ops;
  d.layout = str(layout_of<Class>());
  return d;
}

}  // namespace detail
}  // namespace egw::sdk

// The one exported symbol. Used by the EGW_*_PLUGIN macros.
#define EGW_SDK_ENTRY(Class, kind, thunks, name, version, schema, capabilities)                 \
  extern "C" __attribute__((visibility("default"))) const egw_plugin_descriptor*                \
  egw_plugin_entry_v1(void) {                                                                   \
    static constexpr egw_plugin_descriptor kDescriptor = ::egw::sdk::detail::descriptor<Class>( \
        kind, name, version, schema, &thunks<Class>::kOps, capabilities);                       \
    return &kDescriptor;                                                                        \
  }                                                                                             \
  static_assert(true)
