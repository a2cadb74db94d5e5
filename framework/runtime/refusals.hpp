// Refusals: writes that the store does not take, each object by itself: a verb that is forbidden, a
// schema that does not allow it, one object that the server fails at. They are made again with
// growing pauses, or when what is to be written has changed; each is told once. Called by
// plan_writer.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>

namespace egw::runtime {

template <class Key>  // object and what is done to it
class Refusals {
 public:
  static constexpr std::int64_t kFirstMs = 1000;  // also the shortest when the content has changed
  static constexpr std::int64_t kMostMs = 60'000;
  // A plan may leave a write out for a moment (a gateway that rests) that the next one has again.
  static constexpr std::int64_t kForgottenMs = 10'000;
  // Of a write that failed, which may have been bad luck.
  static constexpr std::int64_t kFirstFailedMs = 200;

  [[nodiscard]] bool any() const { return !refused_.empty(); }
  [[nodiscard]] bool contains(const Key& key) const { return refused_.contains(key); }
  // The steady time before which the write is not to be made; content: as content_of gives it.
  [[nodiscard]] std::int64_t held_until(const Key& key, std::size_t content) const {
    const auto found = refused_.find(key);
    if (found == refused_.end()) return 0;
    const Refused& refused = found->second;
    return refused.tried_ms +
           (refused.content == content ? refused.pause_ms : std::min(refused.pause_ms, kFirstMs));
  }
  // True when this is to be told. failed: the store did not say no, it did not serve this write.
  bool refused(const Key& key, std::size_t content, const std::string& why, std::int64_t now_ms,
               bool failed = false) {
    const auto [it, is_new] = refused_.try_emplace(key);
    Refused& refused = it->second;
    const std::int64_t first = failed ? kFirstFailedMs : kFirstMs;
    refused.pause_ms = is_new ? first : std::clamp(refused.pause_ms * 2, first, kMostMs);
    refused.failed = failed;
    refused.tried_ms = refused.wanted_ms = now_ms;
    refused.content = content;
    return std::exchange(refused.why, why) != why;
  }
  // Its pause is over.
  void at_once(const Key& key) {
    const auto found = refused_.find(key);
    if (found != refused_.end()) found->second.pause_ms = 0;
  }
  // True when it was refused before.
  bool taken(const Key& key) { return refused_.erase(key) != 0; }
  // It was the store that failed, whatever the object: nobody is to wait for long because of that.
  void store_failed() {
    for (auto& [key, refused] : refused_) {
      if (refused.failed) refused.pause_ms = std::min(refused.pause_ms, kFirstMs);
    }
  }
  void store_is_back() {
    for (auto& [key, refused] : refused_) {
      if (refused.failed) refused.pause_ms = 0;
    }
  }
  template <class Visit>
  void each(const Visit& visit) const {
    for (const auto& [key, refused] : refused_) visit(key);
  }
  // Forgets those that are not wanted any more, and have not been for a while.
  template <class Wanted>
  void keep(const Wanted& wanted, std::int64_t now_ms) {
    for (auto& [key, refused] : refused_) {
      if (wanted(key)) refused.wanted_ms = now_ms;
    }
    std::erase_if(refused_, [&](const auto& entry) {
      return now_ms - entry.second.wanted_ms >= kForgottenMs;
    });
  }

 private:
  struct Refused {
    std::int64_t tried_ms = 0, pause_ms = 0, wanted_ms = 0;
    std::size_t content = 0;
    bool failed = false;
    std::string why;
  };
  std::map<Key, Refused> refused_;
};

// What a document says, as a number; but for the times in it and its revision, which are others
// with every plan.
[[nodiscard]] std::size_t content_of(const nlohmann::json& document);

}  // namespace egw::runtime
