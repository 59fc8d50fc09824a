import type { ShownSetting } from '../../daemon/settings/settings.ts'
import { advice, type Finding } from './finding.ts'

/** Names the settings that are written by a former name. */
export const judgeNames = (shown: readonly ShownSetting[]): readonly Finding[] =>
  shown.flatMap(({ section, name, formerName, origin }) =>
    formerName === undefined
      ? []
      : [
          advice(
            `${section}.${formerName}`,
            `is called ${name} now; the former name stays valid`,
            origin.type === 'environment' ? `rename ${origin.variable}` : `write ${name}`,
          ),
        ],
  )
