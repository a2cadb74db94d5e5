// What a state store plugin is given to ask the host's admission with (egw_store_host): turns a
// question over the ABI into an AdmitRequest and the reply back. Owned by state_store_proxy.cpp and
// by the plugin's worker; questions come from any thread of the plugin.
#pragma once

#include <memory>
#include <mutex>

#include "egw/abi/state_store.h"
#include "egw/host/document_memo.hpp"
#include "egw/host/plugin_host.hpp"

namespace egw::host {

struct StoreAdmission {
  egw_store_host host{};

  // nullptr: the store has been closed, though its threads may not know.
  [[nodiscard]] std::shared_ptr<const AdmitFn> admit() {
    const std::lock_guard lock(mutex_);
    return admit_;
  }
  void offer(AdmitFn admit) {
    const std::lock_guard lock(mutex_);
    admit_ = std::make_shared<const AdmitFn>(std::move(admit));
  }
  // Waits for nobody: a question under way may hang in the store's reads.
  void revoke() {
    const std::lock_guard lock(mutex_);
    admit_ = nullptr;
  }
  // egw_store_host.admit; ctx: this.
  static std::int32_t on_admit(void* ctx, std::uint32_t op, const egw_object_kind* abi_kind,
                               egw_str old_json, egw_str new_json, const egw_reader* reader,
                               const egw_admission_sink* out) noexcept;

 private:
  std::mutex mutex_;
  std::shared_ptr<const AdmitFn> admit_;
  DocumentMemo memo_;
};

}  // namespace egw::host
