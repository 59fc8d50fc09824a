import { nativeFunction } from './native-function.ts'

const setScheduler = nativeFunction('int sched_setscheduler(int pid, int policy, const void *parameter)')
const SCHED_BATCH = 3
/** struct sched_param: the static priority, which is 0 for this policy. */
const PARAMETER = Buffer.alloc(4)

/**
 * From now on this thread, when it wakes, takes the processor from nobody who is at work (SCHED_BATCH, sched(7)); its share stays the same. Threads and programs started
 * later inherit it. Needs no privilege. False, and all is as it was, where the system forbids it.
 */
export const scheduleAsBatch = (): boolean => setScheduler(0, SCHED_BATCH, PARAMETER) === 0
