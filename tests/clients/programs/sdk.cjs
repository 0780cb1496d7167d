// Starts and follows jobs of each service with the AWS SDK for JavaScript, and prints how they ended.
const assert = require("node:assert");
const { setTimeout: sleep } = require("node:timers/promises");
const { Batch, paginateListJobs } = require("@aws-sdk/client-batch");
const { ECS, waitUntilTasksStopped } = require("@aws-sdk/client-ecs");
const { Glue } = require("@aws-sdk/client-glue");

const until = async (ask, ended) => {
  for (;;) {
    const answer = await ask();
    if (ended(answer)) return answer;
    await sleep(100);
  }
};

async function batch() {
  const batch = new Batch();
  const { jobId } = await batch.submitJob({
    jobName: "js",
    jobQueue: "hello-world-queue",
    jobDefinition: "print-color",
    arrayProperties: { size: 3 },
    tags: { language: "js" },
  });
  const ended = (answer) => ["SUCCEEDED", "FAILED"].includes(answer.jobs[0].status);
  await until(() => batch.describeJobs({ jobs: [jobId] }), ended);
  const child = (await batch.describeJobs({ jobs: [`${jobId}:0`] })).jobs[0];
  console.log("batch", child.status, child.container.exitCode);
  const indexes = [];
  for await (const page of paginateListJobs({ client: batch, pageSize: 1 }, { arrayJobId: jobId, jobStatus: "SUCCEEDED" }))
    indexes.push(...page.jobSummaryList.map((each) => each.arrayProperties.index));
  console.log("children", ...indexes.sort());
}

async function ecs() {
  const ecs = new ECS();
  const { tasks, failures } = await ecs.runTask({
    cluster: "jobflow",
    taskDefinition: "process-item",
    launchType: "FARGATE",
    networkConfiguration: { awsvpcConfiguration: { subnets: ["subnet-1"] } },
    overrides: { containerOverrides: [{ name: "process-item", command: ["-c", "raise SystemExit(3)"] }] },
  });
  assert.deepEqual(failures, []);
  const task = { cluster: "jobflow", tasks: [tasks[0].taskArn] };
  await waitUntilTasksStopped({ client: ecs, maxWaitTime: 60, minDelay: 1, maxDelay: 1 }, task);
  const stopped = (await ecs.describeTasks(task)).tasks[0];
  assert(stopped.stoppedAt instanceof Date && stopped.stoppedAt >= stopped.createdAt);
  console.log("ecs", stopped.lastStatus, stopped.containers[0].exitCode);
}

async function glue() {
  const glue = new Glue();
  await glue.startCrawler({ Name: "se2_in0" });
  await until(() => glue.getCrawler({ Name: "se2_in0" }), (answer) => answer.Crawler.State === "READY");
  const { JobRunId: RunId } = await glue.startJobRun({ JobName: "se2_job0" });
  const run = () => glue.getJobRun({ JobName: "se2_job0", RunId });
  const ended = await until(run, (answer) => answer.JobRun.CompletedOn instanceof Date);
  console.log("glue", ended.JobRun.JobRunState);
  console.log("crawl", (await glue.listCrawls({ CrawlerName: "se2_in0" })).Crawls[0].State);
}

async function refused() {
  const error = await new Batch().submitJob({ jobName: "a", jobQueue: "none", jobDefinition: "none" }).catch((it) => it);
  console.log("error", error.name, error.$metadata.httpStatusCode);
}

batch().then(ecs).then(glue).then(refused);
