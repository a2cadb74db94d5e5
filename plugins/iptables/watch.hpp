// Notices that somebody else has changed what iptables and ipset hold of ours. Neither tells
// anybody (ipset and iptables-legacy have no events at all), so a thread asks: cheap questions
// often, the whole text only when a cheap answer has changed. Called by datapath.cpp.
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "ipset.hpp"
#include "rules.hpp"
#include "xtables.hpp"

namespace egw::iptables {

// What is to be found. learned: our chains as iptables-save prints them.
struct Filters {
  Backend backend = Backend::kNft;
  std::array<FamilyRules, 2> rules;
  std::array<std::array<Chains, 3>, 2> learned;
};

// One table's chains and jumps differ from what is wanted: in words; empty: they agree. A chain
// that has not been learned yet is compared by its number of rules.
[[nodiscard]] std::string difference(const XtRules& wanted, const Chains& learned,
                                     const XtSaved& saved);

class Watch {
 public:
  explicit Watch(std::function<void(const std::string&)> drifted);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // A change of our own begins: nothing is asked until watch().
  void pause();
  // sets: name -> elements.
  void watch(const Xtables& xtables, std::shared_ptr<const Filters> filters,
             std::map<std::string, std::size_t> sets);

 private:
  void run();
  void look(std::unique_lock<std::mutex>& lock);
  // Changes whenever anything in the backend's tables does.
  [[nodiscard]] static std::string cheap_answer(Backend backend);

  std::function<void(const std::string&)> drifted_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::uint64_t round_ = 0;                 // grows with every pause() and watch()
  std::shared_ptr<const Filters> filters_;  // none: nothing is asked
  std::map<std::string, std::size_t> sets_;
  std::optional<Xtables> xtables_;
  std::string answer_;  // the last cheap one; empty: not asked yet
  std::thread thread_;
};

}  // namespace egw::iptables
