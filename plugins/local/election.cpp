// See election.hpp.
#include "election.hpp"

#include <thread>

#include "explain.hpp"

namespace egw::local {

using namespace std::chrono_literals;

namespace {
constexpr auto kOpenPatience = 5s;
constexpr auto kReadPatience = 2s;
constexpr auto kStampSeen = 1200ms;  // longer than a leader's period
}  // namespace

LocalElection::LocalElection(std::string_view config_json, std::string_view identity,
                             sdk::Host host)
    : config_(parse_election_config(config_json)),
      identity_(identity),
      host_(host),
      database_(config_.path, config_.gate, Database::Make::kIfMissing) {
  if (identity_.empty() || identity_.size() > 300) {
    throw sdk::Failure(sdk::Code::kInvalid, "a candidate's identity must have 1 to 300 characters",
                       identity_.substr(0, 300));
  }
  // Who only asks must not leave an empty database behind: the campaign makes it.
  if (identify(config_.path)) database_.open(std::chrono::steady_clock::now() + kOpenPatience);
}

sdk::Status LocalElection::campaign(sdk::ElectionSink sink) {
  if (campaign_ != nullptr) {
    return sdk::fail(sdk::Code::kInvalid, "the campaign is under way already; resign first",
                     identity_);
  }
  campaign_ = std::make_unique<Campaign>(config_, identity_, sink, host_);
  return sdk::ok();
}

void LocalElection::resign() { campaign_.reset(); }

// A holder with the lock lives as long as the kernel keeps its lock. One without it (it took over
// from a leader that hung, or the file was removed) is seen to live by the stamp that it raises.
bool LocalElection::led() {
  const auto read = [this] {
    return database_.use(std::chrono::steady_clock::now() + kReadPatience).office->read();
  };
  const OfficeRow row = read();
  if (row.holder.empty()) return false;
  if (OfficeLock::taken(database_.leader_path())) return true;
  std::this_thread::sleep_for(kStampSeen);
  const OfficeRow now = read();
  return !now.holder.empty() && !(now == row);
}

sdk::Status LocalElection::health() {
  try {
    if (campaign_ == nullptr) {
      if (!identify(config_.path)) {
        return sdk::fail(sdk::Code::kUnavailable, words::none(), config_.path);
      }
      return led() ? sdk::ok() : sdk::fail(sdk::Code::kNotFound, "nobody leads", config_.path);
    }
    (void)database_.use(std::chrono::steady_clock::now() + kReadPatience).office->read();
  } catch (const SqlError& error) {
    return database_.failed(error);
  } catch (const sdk::Failure& failure) {
    return failure.status();
  }
  return sdk::ok();
}

}  // namespace egw::local
