// See campaign.hpp.
#include "campaign.hpp"

#include <algorithm>
#include <utility>

namespace egw::local {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {
constexpr auto kPatience = 500ms;  // with a locked database; also bounds resign()
constexpr int kQuickTries = 7;     // 1, 2, 4 .. 64 ms
}  // namespace

Campaign::Campaign(const ElectionConfig& config, std::string identity, sdk::ElectionSink sink,
                   const sdk::Host& host)
    : identity_(std::move(identity)),
      timeout_(config.stamp_timeout),
      period_(std::min<std::chrono::milliseconds>(1s, config.stamp_timeout / 5)),
      sink_(sink),
      host_(host),
      database_(config.path, config.gate, Database::Make::kIfMissing),
      lock_(database_.leader_path()),
      files_(database_.leader_path(), true, {config.path, config.gate}),
      thread_([this] { run(); }) {}

Campaign::~Campaign() {
  stop_ = true;
  files_.wake();
  thread_.join();
}

void Campaign::run() {
  Pause pause{0};
  while (!stop_) {
    if (pause.count() > 0 && files_.wait(pause)) tries_ = 0;
    if (!stop_) pause = leading_ ? lead() : stand();
  }
  if (leading_) vacate();
  lock_.release();
}

Session& Campaign::session() { return database_.use(steady_clock::now() + kPatience); }

template <class Body>
std::string Campaign::attempt(Body&& body) {
  std::string why;
  try {
    body();
  } catch (const SqlError& error) {
    why = database_.failed(error).text();
  } catch (const sdk::Failure& failure) {
    why = failure.status().text();
  } catch (const std::exception& e) {
    why = database_.path() + ": " + e.what();
  }
  if (!why.empty() && why != trouble_) host_.warn("leader election: " + why);
  trouble_ = why;
  return why;
}

Campaign::Pause Campaign::stand() {
  Pause pause = period_;
  const std::string why = attempt([&] { pause = stand_in(session()); });
  if (!why.empty() && !leading_) {
    lock_.release();
    seen_since_ = {};  // who cannot look cannot say that somebody else stood still
  }
  return pause;
}

Campaign::Pause Campaign::stand_in(Session& session) {
  const OfficeRow row = session.office->read();
  observe(row);
  // A leader without the lock is one who took over from a leader that hangs: the lock, when it
  // comes free, is that leader's to take.
  const bool lock_decides = row.holder.empty() || row.locked;
  if (lock_decides && lock_.take()) {
    if (take_office(session, row, true)) return period_;
    lock_.release();
  } else if (steady_clock::now() - seen_since_ >= timeout_) {
    if (take_office(session, row, false)) return period_;
  }
  // The kernel tells of the closing of a file a moment before it drops the file's lock: look again
  // soon.
  return tries_ < kQuickTries ? Pause(1 << tries_++) : period_;
}

void Campaign::observe(const OfficeRow& row) {
  if (seen_since_ == SteadyTime{} || !(row == seen_)) {
    seen_ = row;
    seen_since_ = steady_clock::now();
  }
  highest_epoch_ = std::max(highest_epoch_, row.epoch);
  if (row.holder == told_holder_ && row.epoch == told_epoch_) return;
  told_holder_ = row.holder;
  told_epoch_ = row.epoch;
  if (!stop_) sink_.observed(row.holder, row.epoch);
}

bool Campaign::take_office(Session& session, const OfficeRow& seen, bool locked) {
  session.connection.exec("PRAGMA synchronous = FULL");  // an epoch must never come twice
  const SteadyTime begun = steady_clock::now();
  Transaction transaction(session.connection, Transaction::Mode::kWrite);
  const OfficeRow now = session.office->read();
  const bool free = locked ? now.holder.empty() || now.locked : now == seen;
  if (!free) return false;
  const std::uint64_t epoch =
      std::max({now.epoch, session.counters->read().term, highest_epoch_}) + 1;
  session.office->write({identity_, epoch, now.stamp + 1, locked});
  session.counters->set_term(epoch);
  database_.commit(transaction);
  leading_ = true;
  epoch_ = highest_epoch_ = epoch;
  confirmed_ = begun;
  next_stamp_ = begun + period_;
  lock_.announce(identity_, epoch);
  host_.info("leader election: " + identity_ + " leads with epoch " + std::to_string(epoch) +
             (locked ? "" : ", after the holder " + seen.holder + " gave no sign of life"));
  if (!stop_) sink_.elected(epoch);
  observe({identity_, epoch, now.stamp + 1, locked});
  return true;
}

Campaign::Pause Campaign::lead() {
  const SteadyTime now = steady_clock::now();
  const auto left = [&](SteadyTime until) {
    return std::max(Pause(1), std::chrono::ceil<Pause>(until - now));
  };
  if (now < next_stamp_ && lock_.held()) return left(next_stamp_);
  const std::string why = attempt([&] { stamp_in(session()); });
  if (!leading_) return Pause(1);
  next_stamp_ = now + period_;
  if (why.empty()) {
    confirmed_ = now;
    return period_;
  }
  if (steady_clock::now() - confirmed_ >= timeout_) {
    step_down("the office could not be confirmed for " + std::to_string(timeout_.count()) +
              " ms: " + why);
    return period_;
  }
  return std::min(period_, left(confirmed_ + timeout_));
}

void Campaign::stamp_in(Session& session) {
  (void)lock_.take();  // it may still be with one that hangs, or its file may have been removed
  // A stamp lost with the power is no loss.
  session.connection.exec("PRAGMA synchronous = NORMAL");
  Transaction transaction(session.connection, Transaction::Mode::kWrite);
  OfficeRow row = session.office->read();
  if (row.holder != identity_ || row.epoch != epoch_) {
    step_down((row.holder.empty() ? std::string("nobody") : row.holder) +
              " has the office, epoch " + std::to_string(row.epoch) + "; epoch " +
              std::to_string(epoch_) + " is over");
    return;
  }
  ++row.stamp;
  row.locked = lock_.held();
  session.office->write(row);
  database_.commit(transaction);
}

void Campaign::step_down(const std::string& reason) {
  leading_ = false;
  seen_since_ = {};
  host_.warn("leader election: " + identity_ + " lost the office: " + reason);
  if (!stop_) sink_.lost(reason);
  lock_.release();
}

// Where the row cannot be cleared, the lock alone says that the office is free.
void Campaign::vacate() {
  attempt([&] {
    Session& s = session();
    s.connection.exec("PRAGMA synchronous = FULL");
    Transaction transaction(s.connection, Transaction::Mode::kWrite);
    OfficeRow row = s.office->read();
    if (row.holder != identity_ || row.epoch != epoch_) return;
    s.office->write({"", row.epoch, row.stamp + 1, false});
    database_.commit(transaction);
    if (!lock_.held()) lock_.announce({}, 0);
  });
  leading_ = false;
}

}  // namespace egw::local
