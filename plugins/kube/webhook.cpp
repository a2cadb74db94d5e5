// See webhook.hpp.
#include "webhook.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "admission_review.hpp"
#include "reads.hpp"

namespace egw::kube {

using sdk::Code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr milliseconds kLook = 10s;
constexpr milliseconds kAgain = 1s;
constexpr auto kFirstAttempt = 1000ms;
constexpr std::size_t kMostTold = 10;  // sentences about one trouble
// The API server says how long it waits ("?timeout=5s"); we answer a little earlier.
constexpr auto kPatience = 10'000ms, kLongest = 30'000ms, kEarlier = 200ms;

milliseconds patience_of(const std::string& target) {
  constexpr std::string_view kKey = "timeout=";
  const std::size_t query = target.find('?');
  const std::size_t at = query == std::string::npos ? query : target.find(kKey, query);
  unsigned seconds = 0;
  if (at != std::string::npos) {
    const char* end = target.data() + target.size();
    const auto [rest, error] = std::from_chars(target.data() + at + kKey.size(), end, seconds);
    if (error != std::errc() || rest == end || *rest != 's') seconds = 0;
  }
  if (seconds == 0) return kPatience - kEarlier;
  return std::min<milliseconds>(std::chrono::seconds(seconds), kLongest) - kEarlier;
}

WebhookResponse text(unsigned status, std::string body) {
  WebhookResponse out;
  out.status = status;
  out.body = std::move(body) + "\n";
  return out;
}

}  // namespace

Webhook::Webhook(Api& api, WebhookConfig config, std::string ns, sdk::StoreHost host)
    : api_(api),
      config_(std::move(config)),
      host_(host),
      source_(config_.folder.empty()
                  ? shared_certificate(api, config_, ns, stop_, host, [this] { look_again(); })
                  : provided_certificate(config_, ns)),
      authorities_(api, config_.configuration, stop_, host, [this] { look_again(); }),
      cache_(api, host),
      pauses_(kAgain, kLook),
      status_(sdk::fail(Code::kUnavailable, "does not serve yet", "webhook")),
      thread_([this] { run(); }) {}

Webhook::~Webhook() {
  stop_.request();
  api_.wake();
  thread_.join();
}

sdk::Status Webhook::health() {
  std::unique_lock lock(mutex_);
  tried_.wait_for(lock, kFirstAttempt, [this] { return tried_once_; });
  if (status_.ok() && std::chrono::system_clock::now() >= good_until_) {
    return sdk::fail(Code::kUnavailable, "the certificate has run out", "webhook");
  }
  return status_;
}

void Webhook::run() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  sdk::Status now;
  do {
    changed_ = false;
    now = step(std::chrono::system_clock::now());
    {
      const std::lock_guard lock(mutex_);
      // Whoever serves goes on serving; until then all has to succeed once.
      if (now.ok() || !status_.ok()) status_ = now;
      tried_once_ = true;
    }
    tried_.notify_all();
    tell(now, server_ != nullptr);
  } while (!(now.ok() ? rest() : stop_.wait(kAgain)));
  server_.reset();
}

void Webhook::look_again() {
  changed_ = true;
  stop_.look_again();
}

// True: it is to end. Whoever undoes what we do, again and again, is answered less and less often.
bool Webhook::rest() {
  const milliseconds least = pauses_.next();
  if (stop_.wait(least) || stop_.wait(kLook - least, [this] { return changed_.load(); })) {
    return true;
  }
  if (!changed_) pauses_.reset();
  return false;
}

// Two troubles that take turns are said once each, and that they are over.
void Webhook::tell(const sdk::Status& now, bool serves) {
  if (now.ok()) {
    if (std::exchange(troubled_, false))
      host_.info("webhook: its certificate is looked after again");
    told_.clear();
    return;
  }
  if (!serves) return;  // health() says it
  troubled_ = true;
  if (told_.size() < kMostTold && told_.insert(now.text()).second) {
    host_.warn("webhook: its certificate cannot be looked after: " + now.text());
  }
}

sdk::Status Webhook::step(WallTime now) {
  try {
    const sdk::Outcome<Serving> serving = source_->look(now);
    if (!serving.ok()) return serving.status();
    // First the API server learns whom to trust, then that certificate is shown.
    if (!serving->authorities.empty()) {
      sdk::Status told = authorities_.tell(*serving, now);
      if (!told.ok()) return told;
    }
    const KeyPair& pair = serving->pair;
    if (server_ == nullptr) {
      server_ = std::make_unique<WebhookServer>(
          config_.address, config_.port, pair,
          [this](const WebhookRequest& request) { return answer(request); }, host_);
      host_.info("webhook: serves admission on " + config_.address + " port " +
                 std::to_string(config_.port));
    } else if (pair.certificate + pair.key != served_) {
      server_->use(pair);
      host_.info("webhook: serves with another certificate from now on");
    }
    served_ = pair.certificate + pair.key;
    const std::lock_guard lock(mutex_);
    good_until_ = end_of(pair.certificate);
    return sdk::ok();
  } catch (const sdk::Failure& failure) {
    return failure.status();
  } catch (const std::exception& e) {
    return sdk::fail(Code::kInternal, e.what(), "webhook");
  }
}

WebhookResponse Webhook::answer(const WebhookRequest& request) {
  const std::string path = request.target.substr(0, request.target.find('?'));
  const bool defaulting = path == "/mutate";
  if (!defaulting && path != "/validate") return text(404, "want /validate or /mutate");
  if (request.method != "POST") return text(405, "want POST");
  const auto until = request.arrived + patience_of(request.target);
  // Whoever asked has gone: what is done for him is taken from those who still wait.
  if (steady_clock::now() >= until) return text(503, "too many questions: its time has run out");
  sdk::Outcome<AdmissionRequest> review = read_review(request.body);
  if (!review.ok()) return text(400, review.status().text());
  const std::string uid = review->uid;
  ApiReader reader(api_, until, &stop_);
  CachedReader cached(cache_, reader);
  Verdict verdict = judge(std::move(*review), defaulting, host_, cached);
  // What has just changed may not be in the cache yet: nobody is refused for that.
  if (verdict.denied && cached.cached() && reader.trouble().ok()) {
    review = read_review(request.body);
    verdict = judge(std::move(*review), defaulting, host_, reader);
  }
  // A judgement without what was to be read is none, whichever way it went.
  if (!reader.trouble().ok()) {
    verdict = Verdict();
    verdict.allowed = false;
    verdict.code = 503;
    verdict.reason = "ServiceUnavailable";
    verdict.message = cannot_judge(reader.trouble());
  }
  WebhookResponse out = text(200, write_review(uid, verdict));
  out.content_type = "application/json";
  return out;
}

}  // namespace egw::kube
