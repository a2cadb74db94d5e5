// One subscription: keeps somebody's picture of a collection the same as the API server's, by
// client-go's rules (tools/cache/reflector.go): a list, then a watch from its revision, resumed
// wherever it broke. Used by store.cpp.
//
// The list is a stream where the server can do that (1.32 and later: sendInitialEvents), else it
// comes in pages. When a watch cannot be resumed because its revision is too old (410), the
// collection is listed again and the difference to what was delivered is told as upserts and
// deletes. When the server cannot be reached, the subscriber is told DISCONNECTED, and gets a
// snapshot afterwards.
//
// A kind of somebody else's that the server does not serve or not to us (Calico's) is asked for
// once a minute in the end. Its CustomResourceDefinition is watched meanwhile, by its name alone:
// when it comes, the kind is asked for at once.
//
// Threads: one of its own that asks and waits; events of a stream are delivered on the client's.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "api.hpp"
#include "egw/sdk/state_store.hpp"
#include "resource.hpp"
#include "watch_events.hpp"

namespace egw::kube {

class Reflector {
 public:
  Reflector(Api& api, const sdk::Query& query, sdk::EventSink sink, const sdk::Host& host);
  ~Reflector();  // not from within an event
  Reflector(const Reflector&) = delete;
  Reflector& operator=(const Reflector&) = delete;

  // No event is delivered after it has returned; also from within an event.
  void end();
  // After end(): whether the destructor will not have to wait.
  [[nodiscard]] bool finished() const { return finished_; }

 private:
  using Key = std::pair<std::string, std::string>;  // namespace, name
  struct Known {
    std::uint64_t revision = 0;
    std::size_t uid = 0;  // hash
  };
  // How a list or watch ended.
  struct End {
    sdk::Status status;        // ok(): as it ought to
    bool watched = false;      // it was a watch
    bool established = false;  // events were to be had
    bool expired = false;      // 410
    bool unsupported = false;  // the server does no streaming lists
    bool overloaded = false;   // 429
    bool away = false;         // the server cannot serve, whoever asks
    bool absent = false;       // 403, 404: it has no such kind, or not for us
    std::chrono::milliseconds retry_after{0};
  };

  void run();
  void settle(const End& how, std::chrono::steady_clock::time_point began, BackOff& back_off);
  void await_definition();
  static void on_definition(void* ctx, const egw_event* event);
  End list();
  End page(std::string& more, bool& complete);
  End watch(bool initial);
  bool on_event(WatchEvent event, End& how);
  bool on_bookmark(const nlohmann::json& object);

  void begin_listing();
  bool upsert(nlohmann::json object);
  void erase(nlohmann::json object);
  void finish_listing();
  void disconnect(const std::string& why);
  template <class Send>
  void send(Send&& how);

  Api& api_;
  const Resource resource_;
  const std::string ns_, fields_, labels_;
  const bool metadata_only_;
  const Asked asked_;
  const bool patient_;                 // a kind of somebody else's
  const std::string definition_name_;  // empty: the kind is Kubernetes' own, or egw's
  const sdk::EventSink sink_;
  const sdk::Host host_;
  Stop stop_;

  // Held during each event, so that end() can wait for the one under way.
  std::recursive_mutex delivering_;
  bool ended_ = false;

  // Of whichever thread delivers: never two at a time.
  std::map<Key, Known> known_;  // what the subscriber has
  std::set<Key> fresh_;         // named by the list under way
  std::string revision_;        // to go on from
  bool connected_ = false;      // SYNCED was delivered, and DISCONNECTED not since
  bool listing_ = false;
  std::chrono::steady_clock::time_point list_began_{};
  bool listed_ = false;  // revision_ can be watched from
  int quick_ends_ = 0;   // watches that broke at once, in a row
  bool told_trouble_ = false;
  bool streaming_lists_ = true;
  std::string trouble_;
  std::chrono::steady_clock::time_point lost_since_{};
  std::atomic<std::int64_t> silence_ms_{0};

  // Of a kind that is not served:
  BackOff absent_;
  std::atomic<bool> definition_changed_{false};
  std::unique_ptr<Reflector> definition_;

  std::atomic<bool> finished_{false};
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace egw::kube
