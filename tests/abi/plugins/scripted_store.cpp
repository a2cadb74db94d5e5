// A state store on the SDK, in memory, that misbehaves by the names of what it is asked for: see
// subscribe() and get(). Events come from threads of its own, as in a real store.
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "egw/sdk/state_store.hpp"

namespace {

namespace sdk = egw::sdk;

class Scripted final : public sdk::StateStore, private sdk::Reader {
 public:
  Scripted(std::string_view, sdk::StoreHost host) : host_(host) {}
  ~Scripted() override {
    stop_ = true;
    for (std::thread& t : threads_) t.join();
  }

  sdk::Outcome<std::uint64_t> subscribe(const sdk::Query& query, sdk::EventSink sink) override {
    const std::uint64_t number = ++subscriptions_;
    const std::string script(query.name);
    if (script == "refused") return sdk::fail(sdk::Code::kUnavailable, "not today");
    if (script == "throws") throw std::runtime_error("no feed");
    threads_.emplace_back([this, script, sink, number] {
      if (script == "count") {
        sink.snapshot();
        for (std::uint64_t i = 1; i <= 1000; ++i) {
          sink.upsert(i, "ns", "o" + std::to_string(i), "{\"i\":" + std::to_string(i) + "}");
        }
        sink.synced(1000);
      } else if (script == "garbage") {
        sink.snapshot();
        sink.upsert(1, "ns", "broken", "{\"no json");
        sink.upsert(2, "ns", "array", "[]");
        sink.upsert(3, "ns", "", "{}");
        sink.upsert(4, std::string(10000, 'n'), "long", "{}");
        sink.upsert(5, "ns", "deep", std::string(100, '[') + std::string(100, ']'));
        sink.deleted(6, "ns", "gone", "{\"no json");
        sink.upsert(7, "ns", "fine", "{}");
        sink.disconnected("line\nbreak \xff");
      } else if (script == "pods") {
        sink.snapshot();
        sink.upsert(1, "ns", "plain", R"({"metadata":{"name":"plain","annotations":{"a":"b"}}})");
        sink.upsert(2, "ns", "accented", "{\"metadata\":{\"name\":\"caf\xc3\xa9\"}}");
        sink.upsert(3, "ns", "broken", "{\"metadata\":{\"name\":\"broken\"}");
        sink.upsert(4, "ns", "large",
                    "{\"a\":\"" + std::string(std::size_t{17} << 20U, 'x') + "\"}");
        sink.deleted(5, "ns", "plain", R"({"metadata":{"name":"plain"}})");
        sink.synced(5);
      } else if (script == "flood") {  // until unsubscribed, and beyond
        std::uint64_t i = 0;
        while (!stop_) {
          ++i;
          sink.upsert(i, "ns", "o", "{\"i\":" + std::to_string(i) + "}");
          if (over_[number % kSlots]) late_calls_ = late_calls_ + 1;
          std::this_thread::yield();
        }
      }
    });
    return number;
  }
  void unsubscribe(std::uint64_t number) override { over_[number % kSlots] = true; }

  sdk::Status get(const sdk::ObjectKind&, std::string_view ns, std::string_view name,
                  const sdk::ObjectSink& out) override {
    if (name == "throws") throw std::runtime_error("disk on fire");
    if (name == "silent") return sdk::ok();
    if (name == "garbage") {
      out.object(1, "{\"no json");
      return sdk::ok();
    }
    if (name == "late-calls") {
      out.object(1, "{\"calls\":" + std::to_string(late_calls_) + "}");
      return sdk::ok();
    }
    if (name == "serves") {
      out.object(1, host_.serves_admission() ? "{\"serves\":true}" : "{\"serves\":false}");
      return sdk::ok();
    }
    const auto it = objects_.find(std::string(ns) + "/" + std::string(name));
    if (it == objects_.end()) return sdk::fail(sdk::Code::kNotFound, "no such object");
    out.object(it->second.first, it->second.second);
    return sdk::ok();
  }
  sdk::Status list(const sdk::ObjectKind&, const sdk::ObjectSink& out) override {
    for (const auto& [key, value] : objects_) out.object(value.first, value.second);
    return sdk::ok();
  }
  sdk::Status list(const sdk::Query& query, const sdk::ObjectSink& out) override {
    if (query.labels == "bad") return sdk::fail(sdk::Code::kInvalid, "no selector", "labels");
    return list(query.kind, out);
  }
  sdk::Status write(const sdk::Write& w, const sdk::ObjectSink& out) override {
    const std::string key = std::string(w.ns) + "/" + std::string(w.name);
    const auto it = objects_.find(key);
    const std::string old = it == objects_.end() ? "" : it->second.second;
    if (w.expected_revision != 0 && (old.empty() || it->second.first != w.expected_revision)) {
      return sdk::fail(sdk::Code::kConflict, "the stored revision is another", key);
    }
    const sdk::Admission a = host_.admit(w.op, w.kind, old, w.object, *this);
    for (const std::string& text : a.warnings) out.warning(text);
    if (!a.admitted) return sdk::fail(sdk::Code::kDenied, a.denials.front(), key);
    if (!w.dry_run) objects_[key] = {++revision_, a.object};
    out.object(revision_, a.object);
    return sdk::ok();
  }
  sdk::Status health() override { return sdk::fail(sdk::Code::kUnavailable, "in memory only"); }

 private:
  static constexpr std::size_t kSlots = 64;
  sdk::StoreHost host_;
  std::map<std::string, std::pair<std::uint64_t, std::string>> objects_;
  std::uint64_t revision_ = 0;
  std::uint64_t subscriptions_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<bool> over_[kSlots] = {};
  std::atomic<std::uint64_t> late_calls_{0};
  std::vector<std::thread> threads_;
};

}  // namespace

EGW_STATE_STORE_PLUGIN(Scripted, "scripted", "0", "");
