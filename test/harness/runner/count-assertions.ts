import { expect } from 'vitest'
import { countAssertionsBy } from './assertion-count.ts'

// Runs before each file of tests. `requireAssertions` fails a test that has checked nothing; checks
// of the harness count like those of `expect`.
countAssertionsBy(() => expect.setState({ assertionCalls: expect.getState().assertionCalls + 1 }))
