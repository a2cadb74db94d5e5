// Endpoint slices into the store (slice_keeper.hpp).
#include "egw/runtime/slice_keeper.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <set>
#include <utility>
#include <vector>

#include "egw/model/codec.hpp"
#include "egw/runtime/heap_trimmer.hpp"
#include "egw/runtime/write_result.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using core::EndpointSlices;
using host::StoreEvent;
using host::WriteRequest;
using model::Key;
using model::Kind;

namespace {

constexpr std::size_t kPodsAtOnce = 500;  // looked at before others of this thread have their turn
constexpr std::int64_t kAwayMs = 2000;    // until the next attempt when the store is away

Kind kind_of(const Key& slice) {
  return slice.ns.empty() ? Kind::kEgressClusterEndpointSlice : Kind::kEgressEndpointSlice;
}

// Ours into the stored document; what others have put there stays.
void merge(nlohmann::json& stored, const model::EgressEndpointSlice& wanted) {
  nlohmann::json ours = model::encode(wanted);
  stored["endpoints"] = std::move(ours["endpoints"]);
  nlohmann::json& metadata = stored["metadata"];
  metadata["ownerReferences"] = std::move(ours["metadata"]["ownerReferences"]);
  for (const char* field : {"labels", "annotations"}) {
    if (!metadata[field].is_object()) metadata[field] = nlohmann::json::object();
    metadata[field].update(ours["metadata"][field]);
  }
}

}  // namespace

// What one term of leadership knows; its subscriptions end with it.
struct SliceKeeper::Office {
  struct Feed {
    Kind kind{};
    std::unique_ptr<host::Subscription> handle;
    std::set<Key> seen;  // slices that the snapshot under way has named
    bool synced = false;
  };

  explicit Office(std::size_t most) : slices(most) {}

  EndpointSlices slices;
  std::vector<std::unique_ptr<Feed>> feeds;
  std::map<Key, std::int64_t> later;  // refused: when to try again
  std::function<void()> on_change;
  std::int64_t away_until = 0;
  std::uint64_t events = 0;
  HeapTrimmer trimmer;
  bool world_changed = true;

  [[nodiscard]] bool synced() const {
    return std::all_of(feeds.begin(), feeds.end(), [](const auto& feed) { return feed->synced; });
  }
  void on_event(Feed& feed, const StoreEvent& event);
  void on_pod(const StoreEvent& event);
  void on_slice(Feed& feed, const StoreEvent& event);
};

void SliceKeeper::Office::on_pod(const StoreEvent& event) {
  if (event.type == StoreEvent::Type::kDelete) return slices.remove(event.key);
  // One that cannot be read is in no slice, as it has no node that could steer it.
  const auto pod = model::decode<model::Pod>(event.document);
  if (pod) slices.upsert(*pod);
}

void SliceKeeper::Office::on_slice(Feed& feed, const StoreEvent& event) {
  if (event.type == StoreEvent::Type::kDelete) {
    feed.seen.erase(event.key);
    return slices.not_stored(event.key);
  }
  feed.seen.insert(event.key);
  auto slice = model::decode<model::EgressEndpointSlice>([&] {
    // Both kinds have one shape.
    nlohmann::json document = event.document;
    document["kind"] = model::info(Kind::kEgressEndpointSlice).kind;
    return document;
  }());
  if (!slice) {  // it will be written anew
    slice = model::EgressEndpointSlice{};
    slice->policy = event.key.name;
  }
  slice->meta.ns = event.key.ns;
  slice->meta.name = event.key.name;
  slice->meta.revision = event.revision;
  slices.stored(*slice);
}

void SliceKeeper::Office::on_event(Feed& feed, const StoreEvent& event) {
  ++events;
  const bool pods = feed.kind == Kind::kPod;
  switch (event.type) {
    case StoreEvent::Type::kSnapshot:
      feed.synced = false;
      feed.seen.clear();
      if (pods) slices.begin_pods();
      return;
    case StoreEvent::Type::kUpsert:
    case StoreEvent::Type::kDelete:
      if (pods) {
        on_pod(event);
      } else {
        on_slice(feed, event);
      }
      break;
    case StoreEvent::Type::kSynced:
      if (pods) {
        slices.end_pods();
      } else {
        for (const Key& key : slices.all_stored()) {
          if (kind_of(key) == feed.kind && !feed.seen.contains(key)) slices.not_stored(key);
        }
      }
      feed.synced = true;
      feed.seen.clear();
      break;
    case StoreEvent::Type::kDisconnected:
      feed.synced = false;
      break;
    case StoreEvent::Type::kRevision:
      return;
  }
  if (feed.synced) on_change();
}

SliceKeeper::SliceKeeper(const asio::any_io_executor& executor, Clock& clock, Logger& log,
                         Metrics& metrics, host::StateStore& store, const model::Settings& settings,
                         const model::World& world)
    : executor_(executor),
      clock_(clock),
      log_(log),
      metrics_(metrics),
      store_(store),
      settings_(settings),
      world_(world),
      wakeup_(executor, clock) {}

SliceKeeper::~SliceKeeper() = default;

void SliceKeeper::lead(std::uint64_t term) {
  if (term_ == term) return;
  term_ = term;
  office_ = nullptr;  // nothing of an office outlives it
  wakeup_.notify();
}

void SliceKeeper::world_changed() {
  if (!office_ || !settings_.endpoint_slices) return;
  office_->world_changed = true;
  wakeup_.notify();
}

void SliceKeeper::busy(bool on) {
  busy_ = on;
  if (!on) wakeup_.notify();
}

void SliceKeeper::stop() {
  stopping_ = true;
  lead(0);
  wakeup_.notify();
}

bool SliceKeeper::serving(const Office& office) const {
  return !stopping_ && office_.get() == &office;
}

asio::awaitable<void> SliceKeeper::run() {
  while (!stopping_) {
    if (term_ == 0) {
      co_await wakeup_.wait();
      continue;
    }
    office_ = std::make_shared<Office>(settings_.max_endpoints_per_slice);
    office_->on_change = [this] { wakeup_.notify(); };
    auto office = office_;
    co_await serve(std::move(office));
  }
  office_ = nullptr;
}

asio::awaitable<void> SliceKeeper::pause(std::shared_ptr<Office> office, std::int64_t ms) {
  const std::int64_t until = clock_.steady_ms() + ms;
  while (serving(*office) && clock_.steady_ms() < until) co_await wakeup_.wait(until);
}

// False: the office has ended.
asio::awaitable<bool> SliceKeeper::follow(std::shared_ptr<Office> office, Kind kind) {
  office->feeds.push_back(std::make_unique<Office::Feed>());
  Office::Feed& feed = *office->feeds.back();
  feed.kind = kind;
  while (serving(*office)) {
    host::Query query;
    query.kind = kind;
    std::function<void(StoreEvent)> on_event = [weak = std::weak_ptr<Office>(office),
                                                &feed](const StoreEvent& event) {
      if (const auto here = weak.lock()) here->on_event(feed, event);
    };
    auto subscription = co_await store_.subscribe(std::move(query), std::move(on_event));
    if (subscription) {
      feed.handle = std::move(*subscription);
      break;
    }
    log_.warn("the endpoints of policies cannot be followed; trying again",
              {{"kind", model::info(kind).kind}, {"error", subscription.error().to_string()}});
    co_await pause(office, kAwayMs);
  }
  co_return co_await until_synced(office);
}

asio::awaitable<bool> SliceKeeper::until_synced(std::shared_ptr<Office> office) {
  while (serving(*office) && !office->synced()) co_await wakeup_.wait();
  co_return serving(*office);
}

asio::awaitable<void> SliceKeeper::serve(std::shared_ptr<Office> office) {
  // Policies before slices, slices before pods: each finds what it refers to.
  if (settings_.endpoint_slices) office->slices.follow(world_);
  for (const Kind kind : {Kind::kEgressEndpointSlice, Kind::kEgressClusterEndpointSlice}) {
    if (!co_await follow(office, kind)) co_return;
  }
  if (!settings_.endpoint_slices) {
    while (!co_await settle(office)) co_await pause(office, kAwayMs);
    office->feeds.clear();
    while (serving(*office)) co_await wakeup_.wait();
    co_return;
  }
  if (!co_await follow(office, Kind::kPod)) co_return;
  while (serving(*office)) {
    const bool done = co_await settle(office);
    if (!serving(*office)) co_return;
    if (done) office->trimmer.look(office->events);
    if (done && office->later.empty()) {
      co_await wakeup_.wait();
    } else {
      co_await wakeup_.wait(clock_.steady_ms() + kAwayMs);
    }
    co_await pause(office, kGatherMs);
  }
}

// Brings the store in step. True: everything is written, but for what it has refused.
asio::awaitable<bool> SliceKeeper::settle(std::shared_ptr<Office> office) {
  EndpointSlices& slices = office->slices;
  const std::int64_t now = clock_.steady_ms();
  for (auto it = office->later.begin(); it != office->later.end();) {
    if (it->second > now) {
      ++it;
      continue;
    }
    slices.again(it->first);
    it = office->later.erase(it);
  }
  if (std::exchange(office->world_changed, false) && settings_.endpoint_slices) {
    slices.follow(world_);
  }
  while (serving(*office) && office->synced()) {
    if (busy_) {
      co_await wakeup_.wait();
      continue;
    }
    if (slices.work(kPodsAtOnce)) {
      co_await asio::post(executor_, asio::use_awaitable);
      continue;
    }
    EndpointSlices::Step step = slices.next();
    if (step.idle) co_return true;
    if (!step.job) {
      co_await asio::post(executor_, asio::use_awaitable);
    } else if (office->later.contains(step.job->slice)) {
      continue;
    } else {
      EndpointSlices::Job job = std::move(*step.job);
      co_await make(office, std::move(job));
      if (clock_.steady_ms() < office->away_until) co_return false;
    }
  }
  co_return !serving(*office);
}

// ---- writes ------------------------------------------------------------------------------------

asio::awaitable<void> SliceKeeper::make(std::shared_ptr<Office> office, EndpointSlices::Job job) {
  const auto revision = co_await write(job);
  if (!serving(*office)) co_return;
  if (!revision) {
    failed(*office, job, revision.error());
  } else if (job.wanted) {
    job.wanted->meta.revision = *revision;
    office->slices.stored(*job.wanted);
  } else {
    office->slices.not_stored(job.slice);
  }
}

void SliceKeeper::failed(Office& office, const EndpointSlices::Job& job, const Error& error) {
  if (error.code == Errc::kStaleTerm) {
    office_ = nullptr;  // the controller learns of it by a write of its own
    term_ = 0;
    return;
  }
  if (error.code == Errc::kConflict || error.code == Errc::kExists) {
    return office.slices.again(job.slice);
  }
  // Thousands may be refused for one reason: told of the first, and now and then.
  const std::int64_t now = clock_.steady_ms();
  if (error.code != told_code_ || now >= tell_again_ms_) {
    log_.warn("endpoint slices cannot be written, one of them",
              {{"kind", model::info(kind_of(job.slice)).kind},
               {"object", job.slice.to_string()},
               {"error", error.to_string()}});
    told_code_ = error.code;
    tell_again_ms_ = now + kToldMs;
  }
  if (error.code == Errc::kUnavailable || error.code == Errc::kTimeout) {
    office.slices.again(job.slice);
    office.away_until = clock_.steady_ms() + kAwayMs;
  } else {
    office.later[job.slice] = clock_.steady_ms() + kRefusedMs;
  }
}

asio::awaitable<Result<std::uint64_t>> SliceKeeper::send(WriteRequest request) {
  request.term = term_;
  const Kind kind = request.kind;
  auto outcome = co_await store_.write(std::move(request));
  metrics_.store_write(kind, write_result(outcome));
  if (!outcome) co_return tl::unexpected(outcome.error());
  co_return outcome->object.revision;
}

// The revision that is stored afterwards; 0: none.
asio::awaitable<Result<std::uint64_t>> SliceKeeper::write(const EndpointSlices::Job& job) {
  if (job.wanted && job.is_stored) co_return co_await replace(job);
  WriteRequest request;
  request.kind = kind_of(job.slice);
  request.key = job.slice;
  request.op = job.wanted ? WriteRequest::Op::kCreate : WriteRequest::Op::kDelete;
  if (job.wanted) request.document = model::encode(*job.wanted);
  auto made = co_await send(std::move(request));
  if (!made && made.error().code == Errc::kNotFound && !job.wanted) co_return std::uint64_t{0};
  if (!made && made.error().code == Errc::kExists) co_return co_await replace(job);
  co_return made;
}

asio::awaitable<Result<std::uint64_t>> SliceKeeper::replace(const EndpointSlices::Job& job) {
  Key key = job.slice;
  auto stored = co_await store_.get(kind_of(job.slice), std::move(key));
  WriteRequest request;
  request.kind = kind_of(job.slice);
  request.key = job.slice;
  if (!stored) {
    if (stored.error().code != Errc::kNotFound) co_return tl::unexpected(stored.error());
    request.op = WriteRequest::Op::kCreate;
    request.document = model::encode(*job.wanted);
    co_return co_await send(std::move(request));
  }
  nlohmann::json document = stored->document;
  merge(document, *job.wanted);
  if (document == stored->document) co_return stored->revision;
  request.op = WriteRequest::Op::kUpdate;
  request.expected_revision = stored->revision;
  request.document = std::move(document);
  co_return co_await send(std::move(request));
}

}  // namespace egw::runtime
