import * as v from 'valibot'
import { type Network, parseNetwork } from '../wire/ip-address.ts'

/** inet and cidr as PostgreSQL prints them. */
export const networkColumn = v.pipe(
  v.string(),
  v.rawTransform<string, Network>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseNetwork(dataset.value)
    if (parsed !== undefined) return parsed
    addIssue({ message: `not a network: ${dataset.value}` })
    return NEVER
  }),
)
