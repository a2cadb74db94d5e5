// Connection tracking entries that a change of policy has made wrong: deletes them, or gives the
// connection another binding in their place. Sweeper (sweeper.cpp) does it on a thread of its
// own: looking through a big table takes longer than an apply may. Called by datapath plugins.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "egw/sdk/datapath.hpp"
#include "netlink.hpp"

namespace egw::common {

struct Flow {
  sdk::Address source;       // of the connection's first packet
  sdk::Address destination;  // where it really goes: after destination NAT
  sdk::Address translated;   // the source that the destination sees
  std::uint16_t zone = 0;    // of the original direction alone
  bool redirected = false;   // destination NAT: it was sent to another address
};

// What becomes of an entry.
struct Fate {
  enum class Kind : std::uint8_t {
    kKeep,
    kRemove,
    // The connection's packets get a new binding, in no zone: they leave as `translated` from now
    // on, with the pod's port. The old binding moves into `zone` of the original direction, where
    // only answers find it: what comes in under the old source still arrives, for kParkedSeconds.
    // Removed instead if the kernel cannot be told such an entry (helpers, rare protocols).
    kRebind,
  };
  Kind kind = Kind::kKeep;
  sdk::Address translated;
  std::uint16_t zone = 0;
};

inline constexpr std::uint32_t kParkedSeconds = 60;

// What the kernel shall look for, where it can; neither: all entries of both families. The judge
// must decide by itself all the same.
struct SweepHint {
  std::optional<sdk::Address> source, translated;
};

// A question to every entry. Entries that are in a zone in both directions are somebody else's and
// not asked about.
class Sweep {
 public:
  virtual ~Sweep() = default;
  [[nodiscard]] virtual SweepHint hint() const = 0;
  [[nodiscard]] virtual Fate judge(const Flow& flow) const = 0;
  // Takes over what a later sweep of the same kind asks; one pass then answers both.
  virtual void absorb(Sweep& later) = 0;
};

// Answers that were still on their way when the untranslated connection they belong to was removed.
// The first of them that comes before the endpoint's next packet begins a connection of its own,
// from outside, by the kernel's reckoning; all that the endpoint sends then is an answer in that
// one, and keeps the endpoint's own address for as long as it goes on. Such connections are
// removed, too.
class LateAnswers {
 public:
  using Clock = std::chrono::steady_clock;
  // In which an answer would be. Entries beyond the first thousands of a pass are not asked about.
  void add(Message question, const sdk::Address& from);
  // What add() has gathered has been removed now.
  void begin(Clock::time_point now);
  // A look begins, or begins anew: what add() has gathered is found again, or not.
  void start_over() {
    gathered_.clear();
    added_ = 0;
  }
  // When look() is to be called next; none: nothing is expected any more.
  [[nodiscard]] std::optional<Clock::time_point> due() const;
  // Asks for those that are due; how many were found and removed.
  int look(NetlinkSocket& socket, Clock::time_point now);
  // Those that are due cannot be asked for now: they are in their next round.
  void postpone(Clock::time_point now);
  void forget() { rounds_.clear(); }

 private:
  struct Question {
    Message message;
    sdk::Address from;
  };
  struct Round {
    Clock::time_point removed;
    unsigned asked = 0;  // times
    std::vector<Question> questions;
    [[nodiscard]] Clock::time_point due() const;
    // False: it is not due.
    bool next(Clock::time_point now);
  };
  void end_rounds();
  std::vector<Question> gathered_;
  std::size_t added_ = 0;  // in this pass
  std::vector<Round> rounds_;
};

// Runs one pass now: one look at the table, or two if thousands are bound anew. How many entries it
// removed or bound anew, or the errno of the dump as a negative number: then some of it may have
// been done.
int sweep(NetlinkSocket& socket, const SweepHint& hint,
          const std::function<Fate(const Flow&)>& judge, LateAnswers* late = nullptr);

class Sweeper {
 public:
  explicit Sweeper(const sdk::Host& host);
  // Finishes the pass at hand.
  ~Sweeper();
  Sweeper(const Sweeper&) = delete;
  Sweeper& operator=(const Sweeper&) = delete;

  // What waits is one sweep, whatever is added. One that fails is tried until it succeeds.
  void add(std::unique_ptr<Sweep> sweep);
  // Waits until everything added before has been done; false: it takes longer.
  bool drain(std::chrono::milliseconds at_most);
  // Once all that was added is done, late answers are no longer expected: connections that begin
  // from then on are nobody's of ours. drain() waits for this, too.
  void forget_late();
  [[nodiscard]] std::uint64_t deleted() const;

 private:
  void run();
  int pass(const Sweep& job, std::optional<NetlinkSocket>& socket);
  void look(std::optional<NetlinkSocket>& socket);

  sdk::Host host_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::unique_ptr<Sweep> waiting_;
  bool busy_ = false, stop_ = false, forget_ = false;
  std::uint64_t deleted_ = 0;
  LateAnswers late_;  // the thread's own
  std::thread thread_;
};

}  // namespace egw::common
