#include "recording_datapath.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace egw::test {

boost::asio::awaitable<Result<std::vector<host::ProbeFinding>>> RecordingDatapath::probe(
    model::NodeConfig node) {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  probed = std::move(node);
  co_return findings;
}

boost::asio::awaitable<Result<host::ApplyOutcome>> RecordingDatapath::apply(model::Change change) {
  ++calls_running;
  overlapped = overlapped || calls_running > 1;
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  applies.push_back(change);
  while (closed_) co_await gate_.wait();
  --calls_running;
  if (!errors.empty()) {
    Error error = errors.front();
    errors.pop_front();
    if (error.code == Errc::kTimeout) ++missed;
    co_return tl::unexpected(error);
  }
  missed = 0;
  host::ApplyOutcome outcome;
  if (!change.full && change.base != generation) {
    ++need_fulls;
    outcome.need_full = true;
    co_return outcome;
  }
  take(change);
  outcome.failures = failures;
  outcome.repaired = std::exchange(repairs, {});
  co_return outcome;
}

boost::asio::awaitable<Result<std::vector<host::SysctlNeed>>> RecordingDatapath::sysctls() {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  co_return needs;
}

boost::asio::awaitable<Result<nlohmann::json>> RecordingDatapath::observe() {
  ++calls_running;
  overlapped = overlapped || calls_running > 1;
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  --calls_running;
  nlohmann::json seen = {{"generation", generation}};
  co_return seen;
}

boost::asio::awaitable<Result<std::vector<host::CounterValue>>> RecordingDatapath::counters() {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  std::vector<host::CounterValue> values{{"packets", "action=snat", 7}};
  co_return values;
}

boost::asio::awaitable<Result<void>> RecordingDatapath::health() {
  ++calls_running;
  overlapped = overlapped || calls_running > 1;
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  --calls_running;
  if (!unwell.empty()) co_return fail(Errc::kUnavailable, "datapath", unwell);
  co_return Result<void>{};
}

boost::asio::awaitable<Result<void>> RecordingDatapath::forget(model::Address eip) {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  if (!forget_errors.empty()) {
    const Error error = forget_errors.front();
    forget_errors.pop_front();
    co_return tl::unexpected(error);
  }
  forgotten.push_back(eip.to_string());
  co_return Result<void>{};
}

boost::asio::awaitable<Result<void>> RecordingDatapath::purge() {
  ++calls_running;
  overlapped = overlapped || calls_running > 1;
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  --calls_running;
  ++purges;
  if (!unpurgeable.empty()) co_return fail(Errc::kUnavailable, "datapath", unpurgeable);
  state = {};
  generation = 0;
  co_return Result<void>{};
}

void RecordingDatapath::open_gate() {
  closed_ = false;
  gate_.notify();
}

void RecordingDatapath::take(const model::Change& change) {
  if (change.full) {
    state = {};
    unwell.clear();
  }
  if (change.node) state.node = *change.node;
  for (const auto& peer : change.peers) state.peers[peer.name] = peer;
  for (const auto& egress : change.egresses) state.egresses[egress.id] = egress;
  for (const auto& [id, table] : change.classes) state.classes[id] = table;
  for (const auto& [address, id] : change.endpoints) state.endpoints[address] = id;
  for (const auto& name : change.deleted_peers) state.peers.erase(name);
  for (const auto id : change.deleted_egresses) state.egresses.erase(id);
  for (const auto id : change.deleted_classes) state.classes.erase(id);
  for (const auto& address : change.deleted_endpoints) state.endpoints.erase(address);
  generation = change.generation;
}

void RecordingAnnouncer::set(std::vector<net::AnnouncedEip> wanted) {
  eips = std::move(wanted);
  ++sets;
}

std::vector<std::string> RecordingAnnouncer::addresses() const {
  std::vector<std::string> names;
  for (const auto& eip : eips) names.push_back(eip.address.to_string());
  return names;
}

}  // namespace egw::test
