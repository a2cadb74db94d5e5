// The highest term that a leader's write has carried, shared by all processes: an annotation of one
// Lease object, which each store that writes with a term reads and then watches. A write of a lower
// term is refused. Used by store.cpp.
//
// What this cannot do, because the API has no transaction over two objects: stop a write that is
// under way when the next leader's first write begins. The resourceVersion that a leader's write
// expects stops that, and a rule of the object's own CRD that its term must not fall.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "api.hpp"
#include "egw/sdk/state_store.hpp"
#include "reflector.hpp"

namespace egw::kube {

class TermRecord {
 public:
  TermRecord(Api& api, std::string ns, std::string name, const sdk::Host& host);

  // kStaleTerm when a higher term is known. Records a term that is higher than all; `record` false:
  // only compares. what: the object that is written, for the message.
  sdk::Status check(std::uint64_t term, bool record, const std::string& what,
                    std::chrono::milliseconds deadline);

 private:
  sdk::Status read(std::chrono::milliseconds deadline);
  sdk::Status raise(std::uint64_t term, std::chrono::milliseconds deadline);
  void begin_watch();
  static void on_event(void* ctx, const egw_event* event);

  Api& api_;
  const std::string ns_, name_;
  const sdk::Host host_;
  std::mutex mutex_;  // guards the next two
  std::uint64_t term_ = 0;
  nlohmann::json lease_;  // as it was seen last; null: there is none
  // The store's one thread:
  bool known_ = false;  // it has been read
  std::unique_ptr<Reflector> watch_;
};

}  // namespace egw::kube
