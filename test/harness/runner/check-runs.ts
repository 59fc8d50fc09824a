import * as fc from 'fast-check'
import { countAssertion } from './assertion-count.ts'

/**
 * `fc.check` for asynchronous runs with a time limit. fast-check does not wait for the run that its
 * limit interrupts. Here that run is awaited, so that it never overlaps with a later one, and
 * its failure is thrown. `checked`: called when fast-check has its result.
 */
export async function checkRuns<Value>(
  arbitrary: fc.Arbitrary<Value>,
  run: (value: Value) => Promise<void>,
  parameters: fc.Parameters<[Value]>,
  checked: () => void = () => {},
): Promise<fc.RunDetails<[Value]>> {
  let last: Promise<void> = Promise.resolve()
  let value: Value | undefined
  const property = fc.asyncProperty(arbitrary, each => {
    value = each
    last = run(each)
    return last
  })
  const details = await fc.check(property, parameters)
  checked()
  if (details.failed) await last.catch(() => {})
  else
    await last.catch((cause: unknown) => {
      throw new Error(`seed ${details.seed}: ${String(cause)} ${fc.stringify(value)}`, { cause })
    })
  return details
}

/** Like `checkRuns`, and asserts that no run failed. */
export async function assertRuns<Value>(...each: Parameters<typeof checkRuns<Value>>): Promise<void> {
  const details = await checkRuns(...each)
  if (details.failed) throw new Error(fc.defaultReportMessage(details), { cause: details.errorInstance })
  countAssertion()
}
