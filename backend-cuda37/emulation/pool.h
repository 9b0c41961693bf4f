// Host threads that help a launch. They are never joined: a shared library that is closed at exit must not wait.
#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>

class Pool {
  public:
    using Job = void (*)(void *);

    static Pool &of_process() {
        static Pool *pool = new Pool;
        return *pool;
    }

    // Runs `job` on this thread, and on the helpers too where `shared_out` says so and nobody else has them.
    void run(bool shared_out, Job job, void *argument) {
        std::unique_lock<std::mutex> own(taken, std::try_to_lock);
        if (!shared_out || helpers == 0 || !own) return job(argument);
        {
            std::lock_guard<std::mutex> hold(state);
            this->job = job, this->argument = argument;
            running = helpers;
            ++round;
        }
        begun.notify_all();
        job(argument);
        std::unique_lock<std::mutex> hold(state);
        ended.wait(hold, [&] { return running == 0; });
    }

  private:
    Pool() : helpers(std::thread::hardware_concurrency() > 1 ? std::thread::hardware_concurrency() - 1 : 0) {
        for (unsigned i = 0; i < helpers; ++i) std::thread([this] { help(); }).detach();
    }

    void help() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> hold(state);
        for (;;) {
            begun.wait(hold, [&] { return round != seen; });
            seen = round;
            Job job = this->job;
            void *argument = this->argument;
            hold.unlock();
            job(argument);
            hold.lock();
            if (--running == 0) ended.notify_all();
        }
    }

    const unsigned helpers;
    std::mutex taken, state;
    std::condition_variable begun, ended;
    Job job = nullptr;
    void *argument = nullptr;
    unsigned running = 0;
    uint64_t round = 0;
};
